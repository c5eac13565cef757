"""Align Your Flow: distillation of a flow into its flow map, with the bounded tangent of sCM (Sabour et al. 2025)."""

from functools import partial

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, expand, interpolate, linear
from .tangents import normalised
from .types import Array, AverageVelocity, Batch, Coupling, Key, Loss, Net, Pairs, PerExample, Tangent


def align_eulerian(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    velocity: Net,
    pairs: Pairs,
    warmup: Array | float = 1.0,
    tangent: Tangent = partial(normalised, c=0.1),
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """weight |u - stop_gradient(u + g)|^2, g = dX/dt along the teacher's velocity, made safe: AYF-EMD.

    X(x, t, s) = x - (t - s) u(x, t, s) and g = v - u - warmup (t - s) (du/dt + grad u v). With s = 0 it is a continuous
    consistency model, with s = t flow matching towards the teacher.

    Args:
        u: Mean velocity, with forward-mode derivatives; the paper's F. It is called once.
        x: Data [B, ...].
        key: Draws t, s and z.
        velocity: The teacher's dx_t/dt on `path`; in the paper guided by a weaker teacher.
        pairs: Law of (t, s, weight): `pairs.ordered` with shares at s = 0 and s = t.
        warmup: Share of the network's own derivative, `curricula.tangent_warmup`.
        tangent: How g is bounded: `tangents.normalised` or `tangents.clipped`.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `s` and `tangent` (norm of g before it is bounded).
    """
    x_t, t, s, weight = _states(x, key, pairs, path, coupling)
    v = at_least_float32(velocity(x_t, t))
    u_t, rate = jax.jvp(lambda x_t, t: u(x_t, t, s), (x_t, t), (v, jnp.ones_like(t)))
    g = v - u_t - warmup * expand(t - s, x) * rate
    return _regression(u_t, g, weight, tangent, t, s)


def align_lagrangian(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    velocity: Net,
    pairs: Pairs,
    warmup: Array | float = 1.0,
    tangent: Tangent = partial(normalised, c=0.1),
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """weight |u - stop_gradient(u + g)|^2, g = v(X, s) - dX/ds made safe, X = X(x_t, t, s): AYF-LMD.

    g = v(X, s) - u + warmup (t - s) du/ds: the teacher is asked where the jump ends, and so must be finite at every s.

    Arguments and result as in `align_eulerian`; u is differentiated in s alone.
    """
    x_t, t, s, weight = _states(x, key, pairs, path, coupling)
    gap = expand(t - s, x)
    u_t, rate = jax.jvp(lambda s: u(x_t, t, s), (s,), (jnp.ones_like(s),))
    g = at_least_float32(velocity(x_t - gap * u_t, s)) - u_t + warmup * gap * rate
    return _regression(u_t, g, weight, tangent, t, s)


def _states(
    x: Batch, key: Key, pairs: Pairs, path: Path, coupling: Coupling
) -> tuple[Batch, PerExample, PerExample, PerExample]:
    """x_t, t, s and the weight."""
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    return interpolate(path, x, z, t), t, s, weight


def _regression(u: Batch, g: Batch, weight: PerExample, tangent: Tangent, t: PerExample, s: PerExample) -> Loss:
    """Weight |u - stop_gradient(u + g made safe)|^2."""
    u, g = at_least_float32(u), jax.lax.stop_gradient(at_least_float32(g))
    norm = jnp.sqrt(l2(g, jnp.zeros_like(g)))
    return weight * l2(u, jax.lax.stop_gradient(u + tangent(g))), {"t": t, "s": s, "tangent": norm}
