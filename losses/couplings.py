"""Couplings: which noise each data point travels to."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from ._shapes import Float, Int
from .types import Array, Batch, Key

Assign: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""assign(cost[n, n]) -> rows[n], columns[n] of least total cost, each once; costs are finite and may be negative"""


def independent(key: Key, x: Batch) -> tuple[Batch, Batch]:
    """(x, z) with z ~ N(0, I) drawn independently of x; z has the shape and dtype of x."""
    return x, jax.random.normal(key, x.shape, x.dtype)


def optimal_transport(
    key: Key,
    x: Batch,
    *,
    assign: Assign,
    labels: Int[Array, "batch"] | None = None,
    groups: int = 1,
    mesh: Mesh | AbstractMesh | None = None,
) -> tuple[Batch, Batch]:
    """(x, z), the noise of `independent` in the order of least total |x - z|^2 (Pooladian et al. 2023).

    z is permuted and x stays, so labels stay with their data. Every z is used once: z as a whole is still N(0, I), but
    given x it is not, and x + t z has another law than with independent noise, more so the larger the groups. The order
    is the same whatever the noise is multiplied by, since it is that of the greatest sum of x z.

    Args:
        key: Draws z.
        x: Data [B, ...].
        assign: Exact assignment solver. `optax.assignment.hungarian_algorithm` is one as it is, and
            `scipy.optimize.linear_sum_assignment` through `on_host` a faster one.
        labels: Classes [B]; z is then permuted among the examples of one class. Without them z given the label is not
            N(0, I), which a class-conditional network is sampled from.
        groups: Equal parts of the batch, in its order, that are paired each on its own; iLCT's are the batches of its
            devices. The pairs depend on this number and not on the devices that a run has.
        mesh: Where the batch lies, split over all axes of the mesh: each device then pairs the groups that it holds,
            with `jax.shard_map`. Without it the pairs are the same, but the work may be done, and all data gathered,
            on one device.

    Raises:
        ValueError: if groups do not divide the batch or devices not the groups, or labels are not one per example.
    """
    devices = 1 if mesh is None else mesh.size
    if groups < 1 or len(x) % groups or groups % devices:
        raise ValueError(
            f"groups must divide the batch of {len(x)} and be a multiple of the {devices} devices, got {groups}"
        )
    if labels is not None and labels.shape != x.shape[:1]:
        raise ValueError(f"labels must be one per example, {x.shape[:1]}, got {labels.shape}")

    def pair(group: tuple[Array, Array, Array]) -> Array:
        x, z, labels = group
        rows, columns = assign(transport_cost(x, z, labels))
        return jnp.zeros_like(z).at[rows].set(z[columns])

    def pair_groups(*batch: Array) -> Array:
        # One after the other, so that the arithmetic of a group does not depend on how many a device has.
        parts = tuple(a.reshape(-1, len(x) // groups, *a.shape[1:]) for a in batch)
        return jax.lax.map(pair, parts).reshape(batch[1].shape)

    labels = jnp.zeros(len(x), jnp.int32) if labels is None else labels
    x, z = independent(key, x)
    if mesh is not None:
        batch = PartitionSpec(mesh.axis_names)
        # Unchecked, since solvers of libraries start their loops from constants, which do not vary over devices.
        pair_groups = jax.shard_map(pair_groups, mesh=mesh, in_specs=(batch,) * 3, out_specs=batch, check_vma=False)
    return x, pair_groups(x, z, labels)


def transport_cost(x: Batch, z: Batch, labels: Int[Array, "batch"]) -> Float[Array, "batch batch"]:
    """-x z: half of |x - z|^2 but for terms that no permutation changes; more than any other where labels differ.

    Data of one label and noise of another are never paired in a solution: as many z leave a class as enter it, so they
    can stay, and each one that stays saves more than the largest difference of costs.
    """
    flat_x, flat_z = (a.reshape(len(a), x[0].size) for a in (x, z))
    cost = -jnp.matmul(flat_x, flat_z.T, precision=jax.lax.Precision.HIGHEST)
    penalty = 1 + 2 * (cost.max() - cost.min())
    # A pairing is piecewise constant; a callback has no derivative rule that would say so.
    return jax.lax.stop_gradient(jnp.where(labels[:, None] == labels, cost, cost + penalty))


def on_host(solver: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Assign:
    """A solver of NumPy arrays, such as `scipy.optimize.linear_sum_assignment`, inside jit: a callback to the host.

    The device waits meanwhile. Data that are not finite raise what the solver raises. JAX keeps no program with a
    callback in its persistent compilation cache.
    """

    def solve(cost: Array) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = solver(np.asarray(cost))
        return np.asarray(rows, np.int32), np.asarray(columns, np.int32)

    def assign(cost: Array) -> tuple[Array, Array]:
        indices = jax.ShapeDtypeStruct(cost.shape[:1], jnp.int32)
        return jax.pure_callback(solve, (indices, indices), cost, vmap_method="sequential")

    return assign
