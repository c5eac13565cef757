"""Batches spread over devices, and results brought together from devices and hosts."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from .statistics import Statistics

BATCH = "batch"
MOST_CORES = 8


def cores_as_devices() -> None:
    """Make a device of each core, up to 8, where JAX runs on CPUs and the user chose no number; for a whole program.

    XLA spreads one network call badly over cores, and a batch over devices well. Each device has a copy of the
    parameters, hence the limit. Call before anything asks JAX for a device.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "xla_force_host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, MOST_CORES))


def local_mesh() -> Mesh:
    """The devices of this host in one row."""
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), (BATCH,), axis_types=(AxisType.Auto,), devices=devices)


def mesh_of(params: Any) -> Mesh:
    """The mesh that parameters are spread over, as in training, or that of this host if they are on one device."""
    for leaf in jax.tree.leaves(params):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) and sharding.mesh.size > 1:
            return sharding.mesh
    return local_mesh()


def spread(mesh: Mesh) -> NamedSharding:
    """Rows over all devices of a mesh, whatever its axes."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def on_mesh(params: Any, mesh: Mesh) -> Any:
    """Parameters with a copy on each device of a mesh; those that are spread over it already stay as they are."""
    whole = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Any:
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        there = isinstance(sharding, NamedSharding) and sharding.mesh == mesh
        return leaf if there else jax.device_put(leaf, whole)

    return jax.tree.map(place, params)


def rows_per_host(batch_size: int, mesh: Mesh) -> int:
    """Rows that this host gives to a batch of at least `batch_size` that the devices of the mesh divide."""
    hosts = max(1, mesh.size // len(mesh.local_devices))
    devices = len(mesh.local_devices)
    return -(-batch_size // (hosts * devices)) * devices


def over_devices(f: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """f(params, *rows) -> arrays [n, ...], compiled once and with the rows spread over the devices of this host.

    Args:
        f: of parameters, and of arrays [n, ...] whose rows it takes each by itself.
        params: a copy of which each device gets.

    Returns:
        of the arrays, any number of rows: what is missing to as many on each device repeats the last one and is
        dropped.
    """
    mesh = local_mesh()
    params = on_mesh(params, mesh)
    apply = jax.jit(f, out_shardings=spread(mesh))

    def call(*rows: Shaped[np.ndarray, "n ..."]) -> Any:
        n = len(rows[0])
        padded = [np.pad(a, [(0, -n % mesh.size)] + [(0, 0)] * (a.ndim - 1), mode="edge") for a in rows]
        outputs = apply(params, *jax.device_put(padded, spread(mesh)))
        return jax.tree.map(lambda a: np.asarray(a)[:n], outputs)

    return call


def local_rows(x: Shaped[Array, "rows ..."]) -> np.ndarray:
    """The rows of an array, spread by `spread`, that lie on this host, in order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def whole(x: Shaped[Array, "..."]) -> np.ndarray:
    """An array on the host, with the parts that lie on other hosts; these ask for it too."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


# ---- Hosts -----------------------------------------------------------------------------------------------------------


def host_share(n: int) -> range:
    """Which of n samples this host draws: consecutive ones, so that host after host they are all n in order.

    Raises:
        ValueError: fewer samples than hosts.
    """
    hosts, host = jax.process_count(), jax.process_index()
    if n < hosts:
        raise ValueError(f"{n} samples cannot be shared by {hosts} hosts")
    return range(n * host // hosts, n * (host + 1) // hosts)


def gather_rows(x: Shaped[np.ndarray, "rows ..."]) -> Shaped[np.ndarray, "all_rows ..."]:
    """The rows of all hosts, in the order of hosts; each may have another number of them."""
    if jax.process_count() == 1:
        return x
    counts = multihost_utils.process_allgather(np.asarray([len(x)], np.int32)).ravel()
    padded = np.pad(x, [(0, int(counts.max()) - len(x))] + [(0, 0)] * (x.ndim - 1))
    # As bytes: JAX would round float64 to float32 on the way.
    raw = np.ascontiguousarray(padded).view(np.uint8)
    gathered = np.ascontiguousarray(multihost_utils.process_allgather(raw)).view(x.dtype)
    return np.concatenate([rows[:count] for rows, count in zip(gathered, counts, strict=True)])


def sum_over_hosts(statistics: Statistics) -> Statistics:
    """Statistics of the features of all hosts, added in float64 in the order of hosts."""
    if jax.process_count() == 1:
        return statistics
    n, total, outer = (gather_rows(np.asarray(part)[None]) for part in statistics)
    return Statistics(int(n.sum()), total.sum(axis=0), outer.sum(axis=0))
