"""Inductive moment matching: jumps to s from t and from a little below t shall have one law, not one value."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ._shapes import Array, Float
from .couplings import independent
from .paths import Path, at_least_float32, interpolate, linear
from .types import Batch, Coupling, FlowMap, Key, Loss, Triples, Weight

Kernel: TypeAlias = Callable[[Array, Array], Array]
"""kernel(a[..., d], b[..., d]) -> [...], broadcast over the leading axes"""

Scale: TypeAlias = Callable[[Array, Array], Array]
"""scale(t[B], s[B]) -> [B], positive where s < t"""


def inductive_moment_matching(
    flow_map: FlowMap,
    x: Batch,
    key: Key,
    *,
    triples: Triples,
    scale: Scale,
    weight: Weight,
    particles: int = 4,
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """weight(t) MMD^2(law of flow_map(x_t, t, s), law of stop_gradient(flow_map(x_r, r, s))) (Zhou et al. 2025).

    The batch is cut into groups of `particles` that share (t, r, s), s <= r < t, and each law is the few samples of a
    group. x_r is made of the same data and noise as x_t; both jumps have the same weights. At r = t the loss is 0. The
    kernel is exp(-|a - b| / (scale(t, s) d)) for d elements, and a particle is compared with itself too.

    Args:
        flow_map: Student, (x_t, t, s) -> state at s, the identity where s = t.
        x: Data [B, ...].
        key: Draws the times and z.
        triples: Law of (t, r, s) for the groups: `triples.imm`.
        scale: |c_out(t, s)|, what multiplies the raw network in the jump: `conversions.euler_jump` or `edm_jump`.
        weight: `weights.imm_weight`.
        particles: M, examples of a group; 4 in the paper.
        path: x_t = alpha x + sigma z, `scaled(linear, 0.5)` in the paper.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], that of its group, and metrics `t`, `s` and `distance` (without the weight).

    Raises:
        ValueError: unless particles divides the batch, or if the flow map's output has not the shape of x.
    """
    if particles < 1 or len(x) % particles:
        raise ValueError(f"particles must divide the batch of {len(x)}, got {particles}")
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    groups = len(x) // particles
    t, r, s = (jnp.repeat(time, particles) for time in triples(key_t, groups))

    y = flow_map(interpolate(path, x, z, t), t, s)
    goal = flow_map(interpolate(path, x, z, r), r, s)
    if y.shape != x.shape or goal.shape != x.shape:
        raise ValueError(f"a flow map returns the shape of its input {x.shape}, got {y.shape} and {goal.shape}")
    y, goal = (at_least_float32(a).reshape(groups, particles, -1) for a in (y, jax.lax.stop_gradient(goal)))
    size = scale(t, s)[::particles]
    width = jnp.maximum(size, 1e-8)[:, None, None] * y.shape[-1]
    squared = squared_mmd(y, goal, lambda a, b: laplace(a, b, width))
    # Where rounding makes s = t both sides are the same, and their rounding errors are not small beside no width.
    distance = jnp.repeat(jnp.where(size > 0, squared, 0), particles)
    return weight(t) * distance, {"t": t, "s": s, "distance": distance}


def squared_mmd(
    y: Float[Array, "groups particles elements"], goal: Float[Array, "groups particles elements"], kernel: Kernel
) -> Float[Array, "groups"]:
    """Mean over pairs j, k of k(y_j, y_k) + k(goal_j, goal_k) - 2 k(y_j, goal_k): a V-statistic, j = k included.

    With the linear kernel a . b and one particle it is |y - goal|^2, the loss of a consistency model.
    """

    def mean(a: Array, b: Array) -> Array:
        return jnp.mean(kernel(a[:, :, None, :], b[:, None, :, :]), axis=(1, 2))

    return mean(y, y) + mean(goal, goal) - 2 * mean(y, goal)


def laplace(a: Array, b: Array, width: Array | float) -> Array:
    """exp(-max(|a - b|, 1e-8) / width), with the norm over the last axis; its gradient at a = b is 0."""
    squared = jnp.sum(jnp.square(a - b), axis=-1)
    return jnp.exp(-jnp.sqrt(jnp.maximum(squared, 1e-16)) / width)
