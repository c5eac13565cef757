"""Flow map matching: the three equations that a flow map solves, each as a loss on its mean velocity u.

X(x, t, s) = x - (t - s) u(x, t, s) is the flow map of the velocity b if u(x, t, t) = b(x, t) and one of these holds:

    Lagrangian  dX/ds (x, t, s) = b(X(x, t, s), s)
    Eulerian    dX/dt (x, t, s) + grad X (x, t, s) b(x, t) = 0
    semigroup   X(X(x, t, q), q, s) = X(x, t, s)

With b the diagonal of u itself, which `rectified_flow(diagonal(u), ...)` trains on other rows of the batch, this is
self-distillation (Boffi et al. 2025); with a teacher's b it is distillation (Boffi et al. 2024). docs/flow_maps.md has
every method of this folder in these terms.
"""

import jax
import jax.numpy as jnp

from .conversions import average_velocity_to_flow_map
from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, expand, interpolate, linear
from .types import AverageVelocity, Batch, Coupling, Key, Loss, Net, Pairs, Triples


def diagonal(u: AverageVelocity) -> Net:
    """The velocity u(x, t, t) of a flow map."""
    return lambda x_t, t: u(x_t, t, t)


def lagrangian(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    pairs: Pairs,
    velocity: Net | None = None,
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """weight |dX/ds (x_t, t, s) - stop_gradient(b(X(x_t, t, s), s))|^2: LSD (Boffi et al. 2025), LMD with a teacher.

    Forward-mode differentiation is in the number s alone, never in x: the cheapest of the two that differentiate.
    The derivative is taken at x_t; published code of 2024 takes it at X(x_t, t, s), where this equation does not hold.

    Args:
        u: Mean velocity, with a derivative in s.
        x: Data [B, ...].
        key: Draws t, s and z.
        pairs: Law of (t, s, weight): `pairs.ordered`, uniform where s <= t in the paper.
        velocity: A teacher's b; by default the diagonal of u, at constant parameters.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `s` and `distance` (the loss without its weight).
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    x_t = interpolate(path, x, z, t)
    X = average_velocity_to_flow_map(u)
    x_s, rate = jax.jvp(lambda s: X(x_t, t, s), (s,), (jnp.ones_like(s),))
    v = (velocity or diagonal(u))(jax.lax.stop_gradient(x_s), s)
    distance = l2(rate, jax.lax.stop_gradient(at_least_float32(v)))
    return weight * distance, {"t": t, "s": s, "distance": distance}


def eulerian(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    pairs: Pairs,
    velocity: Net | None = None,
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """weight |dX/dt + stop_gradient(grad X b)|^2 at (x_t, t, s): ESD (Boffi et al. 2025), EMD with a teacher.

    Gradients flow through u and its derivative in the number t, and not through the derivative along b. Where u has no
    gradient there either, and b is a pair's own velocity, this is MeanFlow.

    Arguments and result as in `lagrangian`; u is differentiated in x and t.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    x_t, gap = interpolate(path, x, z, t), expand(t - s, x)
    v = jax.lax.stop_gradient(at_least_float32((velocity or diagonal(u))(x_t, t)))
    u_t, rate = jax.jvp(lambda t: u(x_t, t, s), (t,), (jnp.ones_like(t),))
    advection = jax.jvp(lambda x_t: u(x_t, t, s), (x_t,), (v,))[1]
    distance = l2(u_t + gap * rate, jax.lax.stop_gradient(v - gap * advection))
    return weight * distance, {"t": t, "s": s, "distance": distance}


def semigroup(
    u: AverageVelocity,
    x: Batch,
    key: Key,
    *,
    triples: Triples,
    target: AverageVelocity | None = None,
    path: Path = linear,
    coupling: Coupling = independent,
) -> Loss:
    """|u(x_t, t, s) - stop_gradient(mean velocity of the jumps t -> q -> s)|^2: PSD (Boffi et al. 2025).

    Nothing is differentiated in x or time: two calls more for the goal. Divided by t - s as it is, this is the
    semigroup equation in units of velocity.

    Args:
        u: Mean velocity.
        x: Data [B, ...].
        key: Draws the times and z.
        triples: Law of (t, q, s): `triples.midpoint` or `triples.split` of a law of pairs.
        target: u at the target parameters; by default u itself.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `s` and `distance`, the loss.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, q, s = triples(key_t, len(x))
    x_t = interpolate(path, x, z, t)
    goal_of = target or u
    first = goal_of(x_t, t, q)
    second = goal_of(x_t - expand(t - q, x) * first, q, s)
    share = expand((t - q) / jnp.maximum(t - s, jnp.finfo(t.dtype).tiny), x)  # of the first jump; 0/0 where s = t
    goal = jax.lax.stop_gradient(share * first + (1 - share) * second)
    distance = l2(u(x_t, t, s), goal)
    return distance, {"t": t, "s": s, "distance": distance}
