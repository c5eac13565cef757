"""Where arrays live: data parallelism, fully sharded parameters by one rule, tensor parallelism of DiT by a second."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

SMALLEST_SHARDED = 2**16  # elements; splitting less than this costs more in messages than it saves in memory
HOST = "pinned_host"  # what JAX calls the memory of the host that a device reads by itself
EXAMPLES = PartitionSpec(("data", "fsdp"))


def make_mesh(*, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices as a mesh ("data", "fsdp", "tensor"): examples over the first two, the state over the last two.

    Args:
        fsdp: devices that share one copy of the state and each take their own examples.
        tensor: devices that share the blocks of a transformer and take the same examples.
        devices: local or of a topology; all of this run by default.

    Raises:
        ValueError: if fsdp x tensor does not divide the number of devices, or these are of several slices.
    """
    devices = jax.devices() if devices is None else devices
    count, shared = len(devices), fsdp * tensor
    if fsdp < 1 or tensor < 1 or count % shared:
        name, value = ("fsdp", fsdp) if tensor == 1 else ("fsdp x tensor", f"{fsdp} x {tensor}")
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise ValueError(f"{name} must divide the {count} devices, got {value}; that do: {divisors}")
    # Those of a topology have none, and those of GPUs count their hosts.
    slices = {getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}
    if len(slices) > 1:
        raise ValueError(f"the {count} devices are of {len(slices)} TPU slices; a run takes one slice at a time")
    shape = (count // shared, fsdp, tensor)
    try:
        placed = mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:  # no axes of the slice multiply up to these, as 16 x 16 chips to 4 x 64
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    # Under Explicit axes reshapes of sharded parameters are type errors.
    return Mesh(placed, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def check_batch_size(batch_size: int, *, accumulate: int = 1, devices: int | None = None) -> None:
    """Refuse a global batch that the devices and micro-batches do not divide, before anything compiles.

    Args:
        batch_size: of the global batch.
        accumulate: micro-batches.
        devices: over which examples are spread; all of this run by default.

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
    """Examples spread over all devices but those that share a transformer's blocks."""
    return NamedSharding(mesh, EXAMPLES)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh | AbstractMesh, state: Any) -> Any:
    """Shardings of a tree of arrays or shapes: parameters, and whatever has their names, such as moments and averages.

    First the layers of DiT's blocks are split over "tensor" along the axis that `tensor_axis` names. Then what is
    large is split over "fsdp" along its largest divisible axis that is not taken.
    """
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]

    def rule(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        split = tensor_axis(path)
        if tensor > 1 and split is not None and leaf.shape[split] % tensor == 0:
            spec[split] = "tensor"
        free = [axis for axis, size in enumerate(leaf.shape) if spec[axis] is None and size % fsdp == 0]
        if fsdp > 1 and np.prod(leaf.shape, dtype=int) >= SMALLEST_SHARDED and free:
            spec[max(free, key=lambda axis: leaf.shape[axis])] = "fsdp"
        while spec and spec[-1] is None:
            spec.pop()
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(rule, state)


def tensor_axis(path: tuple[Any, ...]) -> int | None:
    """The axis of a layer of DiT's blocks that is split between devices; None for everything else.

    Attention and MLP each begin with a layer whose outputs are split and end with one whose inputs are, after which
    the devices add up (Shoeybi et al. 2019, Megatron-LM).
    """
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    if "blocks" not in names[:-2]:
        return None
    layer, part = names[-2:]
    if layer in ("qkv", "mlp0"):
        return -1
    return -2 if layer in ("proj", "mlp1") and part == "kernel" else None


def on_host(shardings: Any) -> Any:
    """The same parts of the same devices, but in the memory of their host.

    Raises:
        ValueError: if the devices have no such memory.
    """

    def moved(sharding: NamedSharding) -> NamedSharding:
        return sharding.with_memory_kind(HOST)

    device = next(iter(jax.tree.leaves(shardings))).mesh.devices.flat[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if HOST not in kinds:
        raise ValueError(f"{device.device_kind} has no memory {HOST!r} to keep averages in; it has {', '.join(kinds)}")
    return jax.tree.map(moved, shardings)
