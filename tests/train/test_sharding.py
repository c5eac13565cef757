import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from train.sharding import batch_sharding, check_batch_size, make_mesh, state_shardings

MESH = AbstractMesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


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


def test_batches_are_spread_over_all_devices():
    assert batch_sharding(MESH).spec == PartitionSpec(("data", "fsdp"))


def test_mesh_axes_are_auto():
    assert make_mesh().axis_types == (AxisType.Auto, AxisType.Auto)


@pytest.mark.parametrize("fsdp", [0, 3])
def test_an_fsdp_that_does_not_divide_the_devices_is_refused(fsdp):
    with pytest.raises(ValueError, match=f"fsdp must divide the 1 devices, got {fsdp}"):
        make_mesh(fsdp=fsdp)


@pytest.mark.parametrize(
    ("batch_size", "devices", "accumulate", "nearest"),
    [(100, 8, 1, "96 or 104"), (5, 8, 1, "8"), (64, 8, 3, "48 or 72"), (0, 8, 1, "8")],
)
def test_indivisible_batches_name_the_nearest_that_would_do(batch_size, devices, accumulate, nearest):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} .*nearest that is: {nearest}"):
        check_batch_size(batch_size, accumulate=accumulate, devices=devices)


def test_divisible_batches_pass():
    check_batch_size(96, accumulate=3, devices=8)  # raises if not
