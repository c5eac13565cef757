import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from tests.tpu import environment, needs_libtpu
from train.sharding import batch_sharding, check_batch_size, make_mesh, state_shardings

ROOT = Path(__file__).parents[2]
AXES = ("data", "fsdp", "tensor")
MESH = AbstractMesh((2, 4, 1), AXES, axis_types=(AxisType.Auto,) * 3)
TENSOR = AbstractMesh((2, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((512, 1024), PartitionSpec(None, "fsdp")),  # the larger axis
        ((1024, 511), PartitionSpec("fsdp")),
        ((3, 3, 512, 512), PartitionSpec(None, None, "fsdp")),
        ((511, 513), PartitionSpec()),  # nothing divides
        ((128, 128), PartitionSpec()),  # too small to pay
        ((), PartitionSpec()),
    ],
)
def test_the_largest_divisible_axis_of_large_arrays_is_split(shape, spec):
    assert state_shardings(MESH, jax.ShapeDtypeStruct(shape, "float32")).spec == spec


@pytest.mark.parametrize(
    ("layer", "shape", "spec"),
    [
        ("qkv", (12, 768, 2304), PartitionSpec(None, "fsdp", "tensor")),
        ("proj", (12, 768, 768), PartitionSpec(None, "tensor", "fsdp")),
        ("mlp0", (12, 768, 3072), PartitionSpec(None, "fsdp", "tensor")),
        ("mlp1", (12, 3072, 768), PartitionSpec(None, "tensor", "fsdp")),
        ("modulation", (12, 768, 4608), PartitionSpec(None, None, "fsdp")),
        ("mlp0", (12, 767, 3071), PartitionSpec("fsdp")),  # what tensor does not divide is split by the other rule
    ],
)
def test_layers_of_blocks_are_split_where_their_features_are(layer, shape, spec):
    kernel = jax.ShapeDtypeStruct(shape, "float32")
    bias = jax.ShapeDtypeStruct(shape[::2], "float32")
    found = state_shardings(TENSOR, {"mu": {"blocks": {layer: {"kernel": kernel, "bias": bias}}}, "w": kernel})
    assert found["mu"]["blocks"][layer]["kernel"].spec == spec
    split = "tensor" in spec and spec[-1] == "tensor"
    assert found["mu"]["blocks"][layer]["bias"].spec == (PartitionSpec(None, "tensor") if split else PartitionSpec())
    assert "tensor" not in found["w"].spec  # layers of other networks


def test_batches_are_spread_over_all_devices():
    assert batch_sharding(MESH).spec == PartitionSpec(("data", "fsdp"))


def test_mesh_axes_are_auto():
    assert make_mesh().axis_types == (AxisType.Auto,) * 3


@needs_libtpu
@pytest.mark.parametrize(("fsdp", "tensor"), [(4, 1), (8, 1), (2, 8)])
def test_axes_that_no_axes_of_a_slice_multiply_up_to_are_there_too(fsdp, tensor):
    """16 chips in a square as 2 x 8: each axis of the mesh has part of one of the slice's."""
    program = f"""
from jax.experimental import topologies
from train.sharding import make_mesh

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
mesh = make_mesh(fsdp={fsdp}, tensor={tensor}, devices=devices)
print(dict(mesh.shape), len(set(mesh.devices.ravel())))
"""
    variables = environment()
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    sizes = {"data": 16 // fsdp // tensor, "fsdp": fsdp, "tensor": tensor}
    assert done.stdout == f"{sizes} 16\n", done.stderr


@pytest.mark.parametrize("fsdp", [0, 3])
def test_an_fsdp_that_does_not_divide_the_devices_is_refused(fsdp):
    with pytest.raises(ValueError, match=f"fsdp must divide the 1 devices, got {fsdp}"):
        make_mesh(fsdp=fsdp)


def test_a_product_of_axes_that_does_not_divide_the_devices_is_refused():
    with pytest.raises(ValueError, match="fsdp x tensor must divide the 1 devices, got 1 x 2; that do: 1"):
        make_mesh(tensor=2)


@pytest.mark.parametrize(
    ("batch_size", "devices", "accumulate", "nearest"),
    [(100, 8, 1, "96 or 104"), (5, 8, 1, "8"), (64, 8, 3, "48 or 72"), (0, 8, 1, "8")],
)
def test_indivisible_batches_name_the_nearest_that_would_do(batch_size, devices, accumulate, nearest):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} .*nearest that is: {nearest}"):
        check_batch_size(batch_size, accumulate=accumulate, devices=devices)


def test_divisible_batches_pass():
    check_batch_size(96, accumulate=3, devices=8)  # raises if not


def test_devices_of_two_slices_are_refused():
    class Device:
        def __init__(self, number):
            self.id, self.platform, self.slice_index = number, "tpu", number // 4

    with pytest.raises(ValueError, match="the 8 devices are of 2 TPU slices; a run takes one slice at a time"):
        make_mesh(devices=[Device(number) for number in range(8)])
