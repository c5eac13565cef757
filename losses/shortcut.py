"""Shortcut models: one network for steps of many lengths, each length learned from two steps of half of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .couplings import independent
from .distances import l2
from .paths import at_least_float32, expand, interpolate, linear, velocity
from .types import AverageVelocity, Batch, Coupling, Key, Loss, PerExample


def shortcut(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    target: AverageVelocity,
    rows: int,
    steps: int = 128,
    clip: float = math.inf,
    coupling: Coupling = independent,
) -> Loss:
    """|u(x_t, t, t - d) - goal|^2 on the straight path, with d a power of 1/2 (Frans et al. 2024, alg. 1).

    The first rows of the batch bootstrap: their goal is the mean of two half steps of the target. On all others d is
    the smallest step, and the goal the pair's own velocity, z - x: flow matching. So what is learned in the end is the
    product of Euler's `steps` steps along the flow, and not the flow. Every row has its own data, noise and time; in
    the authors' code both kinds of rows share theirs.

    Args:
        u: Mean velocity between t and s = t - d; the paper's network gets log2(1 / d) as second input.
        x: Data [B, ...].
        key: Draws t and z.
        target: u at averaged parameters, for the first rows alone: called with [rows, ...], so its labels are theirs.
            The paper guides it where its step is the smallest, in the first rows // log2(steps), and nowhere else.
        rows: How many rows bootstrap, an eighth of the batch in the paper.
        steps: 1 / d of the smallest step, a power of 2.
        clip: Largest magnitude in the state half way and in the goal of bootstrap rows: 4 in the paper, for latents.
            Infinity is none.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`.

    Raises:
        ValueError: unless steps is a power of 2 from 2 on, and rows, at least one for each step but the smallest, are
            fewer than the batch; or for clip <= 0.
    """
    if not clip > 0:
        raise ValueError(f"clip must be positive, infinity is none, got {clip}")
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, d = shortcut_times(key_t, len(x), rows=rows, steps=steps)
    x_t = interpolate(linear, x, z, t)

    t_first, half = t[:rows], d[:rows] / 2
    v_first = target(x_t[:rows], t_first, t_first - half)
    x_half = jnp.clip(x_t[:rows] - expand(half, v_first) * v_first, -clip, clip)
    v_second = target(x_half, t_first - half, t_first - 2 * half)
    bootstrap = jnp.clip((v_first + v_second) / 2, -clip, clip)
    goal = jnp.concatenate([bootstrap, velocity(linear, x, z, t)[rows:]])
    return l2(u(x_t, t, t - d), jax.lax.stop_gradient(goal)), {"t": t}


def shortcut_times(key: Key, n: int, *, rows: int, steps: int = 128) -> tuple[PerExample, PerExample]:
    """(t, d), each [n]: t is uniform on the multiples of d in (0, 1].

    The first rows have the steps 2 / steps, 4 / steps, ..., 1 in this order, each rows // log2(steps) times, and what
    is left of them the step 1; from there on d = 1 / steps.

    Raises:
        ValueError: as `shortcut`.
    """
    levels = round(math.log2(max(steps, 1)))
    if steps < 2 or 2**levels != steps:
        raise ValueError(f"steps must be a power of 2 from 2 on, got {steps}")
    if not levels <= rows < n:
        raise ValueError(f"rows must be at least log2(steps) = {levels} and less than the batch of {n}, got {rows}")
    exponents = np.maximum(levels - 1 - np.arange(rows) // (rows // levels), 0)
    counts = jnp.asarray(np.append(2**exponents, np.full(n - rows, steps)))
    return jax.random.randint(key, (n,), 1, counts + 1) / counts, 1 / counts
