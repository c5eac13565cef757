"""Consistency flow matching: one straight line per segment, by its ends and by its velocity."""

from functools import partial

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2
from .paths import at_least_float32, expand, interpolate, linear
from .steps import same_noise
from .times import uniform
from .types import Array, Batch, Coupling, Key, Loss, Net, Step, Times


def consistency_flow_matching(
    net: Net,
    x: Batch,
    key: Key,
    *,
    boundary: Array | float,
    segments: int = 2,
    delta: float = 1e-3,
    alpha: float = 1e-5,
    target: Net | None = None,
    times: Times = partial(uniform, high=0.999),
    step: Step = same_noise,
    coupling: Coupling = independent,
) -> Loss:
    """|f(x_t, t) - f(x_r, r)|^2 / 2 + alpha |v(x_t, t) - v(x_r, r)|^2 / 2 with r = t - delta (Yang et al. 2024, code).

    f(x_t, t) = x_t - (t - e) v(x_t, t) follows the velocity to e, the lower end of t's segment of equal length. Both
    points have the same x and z. Where r <= 1 - boundary the goal is x_e itself instead of f(x_r, r): flow matching
    with weight (t - e)^2 / 2. The second term is left out there, and where r is in another segment. Nothing is divided
    by delta, so the loss of the first kind is of the order of delta^2.

    Args:
        net: Velocity v(x_t, t) on the straight path; it is not told the segment's end.
        x: Data [B, ...].
        key: Draws t and z.
        boundary: Share of the time, from noise on, in which the network is compared with itself: 0 in the paper's first
            stage, 0.9 in its second, 1 for no flow matching at all. May be traced. The released code reads 1 whatever
            its config says.
        segments: K. The sampler is `euler` on K equal steps, or on a multiple of K.
        delta: t - r; no longer than a segment.
        alpha: Share of the second term, small: both vanish together only on straight trajectories.
        target: Velocity at r, never differentiated: averaged weights in the paper, `net` itself in the code and by
            default.
        times: Law of t, which stays clear of pure noise in the code.
        step: From x_t to x_r. With `steps.euler` and a flow's velocity the flow is distilled.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `ends` and `velocities`, the two terms without alpha.

    Raises:
        ValueError: unless segments >= 1 and 0 < delta <= 1 / segments.
    """
    if segments < 1 or not 0 < delta <= 1 / segments:
        raise ValueError(
            f"consistency_flow_matching needs segments >= 1 and 0 < delta <= 1 / segments, got {segments=}, {delta=}"
        )
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t = times(key_t, len(x))
    r = jnp.maximum(t - delta, 0)
    e = jnp.minimum(jnp.floor(segments * t), segments - 1) / segments

    x_t, x_r = interpolate(linear, x, z, t), step(linear, x, z, t, r)
    v_t = at_least_float32(net(x_t, t))
    v_r = jax.lax.stop_gradient(at_least_float32((net if target is None else target)(x_r, r)))
    f_t, f_r = x_t - expand(t - e, x) * v_t, x_r - expand(r - e, x) * v_r

    x_e = interpolate(linear, x, z, e)
    ends = jnp.where(r > 1 - boundary, l2(f_t, f_r), l2(f_t, x_e)) / 2
    # 1.01 keeps rounding from letting in an r that is at the segment's end.
    compared = (t > 1 - boundary) & (t - e > 1.01 * delta)
    velocities = jnp.where(compared, l2(v_t, v_r) / 2, 0.0)
    return ends + alpha * velocities, {"t": t, "ends": ends, "velocities": velocities}
