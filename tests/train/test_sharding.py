import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from train.sharding import batch_sharding, check_batch_size, make_mesh, state_shardings

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
