"""Where arrays live: data parallelism, and fully sharded parameters by one rule."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

SMALLEST_SHARDED = 2**16  # elements; splitting less than this costs more in messages than it saves in memory


def make_mesh(*, fsdp: int = 1) -> Mesh:
    """All devices as a mesh ("data", "fsdp"), with `fsdp` devices sharing one copy of the state.

    Raises:
        ValueError: if fsdp does not divide the number of devices.
    """
    devices = jax.device_count()
    if fsdp < 1 or devices % fsdp:
        raise ValueError(f"fsdp must divide the {devices} devices, got {fsdp}")
    # make_mesh defaults to Explicit axes, under which reshapes of sharded parameters are type errors.
    return jax.make_mesh((devices // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def check_batch_size(batch_size: int, *, accumulate: int = 1, devices: int | None = None) -> None:
    """Refuse a global batch that the devices and micro-batches do not divide, before anything compiles.

    Raises:
        ValueError: naming the numbers and the nearest batch sizes that would do.
    """
    devices = jax.device_count() if devices is None else devices
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    unit = devices * accumulate
    if batch_size < 1 or batch_size % unit:
        below = batch_size // unit * unit
        nearest = f"{below} or {below + unit}" if below > 0 else f"{unit}"
        raise ValueError(
            f"batch_size {batch_size} is not divisible by {devices} devices x {accumulate} micro-batches; "
            f"the nearest that is: {nearest}"
        )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Examples spread over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh | AbstractMesh, state: Any) -> Any:
    """Shardings of a tree of arrays or shapes: large ones split over "fsdp" along their largest divisible axis."""
    ways = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        divisible = [axis for axis, size in enumerate(leaf.shape) if size % ways == 0]
        if ways == 1 or np.prod(leaf.shape, dtype=int) < SMALLEST_SHARDED or not divisible:
            return replicated(mesh)
        axis = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(rule, state)
