"""Improved MeanFlow (iMF): a regression of the velocity, by the mean velocity that a network predicts."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from . import pairs as pair_laws
from .couplings import independent
from .distances import l2
from .mean_flow import parts, which_jump
from .paths import at_least_float32, expand, interpolate, linear, velocity
from .types import Array, Batch, Coupling, Key, Loss, Pairs, PerExample
from .weights import inverse_power


class Guidance(NamedTuple):
    """What a network is told that takes guidance as an input, [B] each: scale omega, used where low <= t <= high."""

    omega: PerExample
    low: PerExample
    high: PerExample


TwoHeads: TypeAlias = Callable[[Array, Array, Array, Any, Guidance], tuple[Array, Array]]
"""net(x_t[B, ...], t[B], s[B], y, guidance) -> u, v, [B, ...] both: mean velocity between s <= t and t, and velocity"""

GuidanceLaw: TypeAlias = Callable[[Key, int], Guidance]
"""law(key, n) -> Guidance of n examples"""


def improved_mean_flow(
    net: TwoHeads,
    x: Batch,
    key: Key,
    *,
    y: Any = None,
    guidance: GuidanceLaw | None = None,
    null: int | None = None,
    pairs: Pairs = pair_laws.sorted_logit_normal,
    jump_share: float = 0.5,
    p: float = 1.0,
    c: float = 0.01,
    coupling: Coupling = independent,
) -> Loss:
    """w |u + (t - s) stop_gradient(du/dt) - v_g|^2 + w' |v - v_g|^2, w and w' adaptive (improved MeanFlow, 2025).

    du/dt is taken along the network's own velocity, its second head at s = t, and not along the pair's: so the first
    term is a regression of a function of x_t on v_g, and its least is that of flow matching. v_g is the pair's velocity
    v_t, or v_t + (1 - 1/omega) (v(y) - v(null)) where the network is guided: the head v learns the scale omega.

    Args:
        net: Both heads, called as net(x_t, t, s, y, guidance), with a forward-mode derivative.
        x: Data [B, ...].
        key: Draws t, s, z and the guidance.
        y: Conditions, as in `mean_flow`; labels where there is guidance.
        guidance: Law of what the network is told; none is omega = 1. Where s = t the interval is all of [0, 1].
        null: The label that means none. Examples that have it are not guided.
        pairs: Law of (t, s, weight) where s < t; elsewhere s is t.
        jump_share: Share of the examples that have s < t, in (0, 1], as in `mean_flow`; 1/2 in the paper.
        p: Power of the adaptive weights.
        c: What is added to the errors in them.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `s`, `distance` and `distance_v` (means over the elements).

    Raises:
        ValueError: if the batch is not of whole groups of this share, or guidance lacks labels or their null.
    """
    jumping, staying, join = parts(len(x), jump_share)
    key_t, key_z, key_g = jax.random.split(key, 3)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    jump = which_jump(len(x), jump_share)
    s = jnp.where(jump, s, t)
    x_t, v_t = interpolate(linear, x, z, t), velocity(linear, x, z, t)
    g = guidance(key_g, len(x)) if guidance else unguided(t)
    g = Guidance(g.omega, jnp.where(jump, g.low, 0.0), jnp.where(jump, g.high, 1.0))

    def own_velocity(x_t: Batch, t: PerExample, y: Any, g: Guidance) -> Batch:
        return jax.lax.stop_gradient(at_least_float32(net(x_t, t, t, y, g)[1]))

    if guidance is None:
        v_g, direction = v_t, own_velocity(*jumping((x_t, t, y, g)))
    else:
        if y is None or null is None:
            raise ValueError(f"guidance needs labels y and the label null that means none, got {y=}, {null=}")
        v_y = own_velocity(x_t, t, y, g)
        v_null = own_velocity(x_t, t, jnp.full_like(y, null), g)
        inside = (g.low <= t) & (t <= g.high) & (y != null)
        v_g = v_t + expand(jnp.where(inside, 1 - 1 / g.omega, 0.0), x) * (v_y - v_null)
        direction = jumping(v_y)

    x_0, t_0, s_0, y_0, g_0, goal_0 = jumping((x_t, t, s, y, g, v_g))
    tangents = (direction, jnp.ones_like(t_0), jnp.zeros_like(s_0))
    u, du, v = jax.jvp(lambda x, t, s: net(x, t, s, y_0, g_0), (x_0, t_0, s_0), tangents, has_aux=True)
    u, du = at_least_float32(u), at_least_float32(du)
    error_u = l2(u + expand(t_0 - s_0, x_0) * jax.lax.stop_gradient(du), goal_0)
    error_v = l2(at_least_float32(v), goal_0)
    if jump_share < 1:
        x_1, t_1, y_1, g_1, goal_1 = staying((x_t, t, y, g, v_g))
        u_1, v_1 = (at_least_float32(head) for head in net(x_1, t_1, t_1, y_1, g_1))
        error_u, error_v = join(error_u, l2(u_1, goal_1)), join(error_v, l2(v_1, goal_1))
    loss = weight * (inverse_power(error_u, p=p, c=c) + inverse_power(error_v, p=p, c=c))
    return loss, {"t": t, "s": s, "distance": error_u / x[0].size, "distance_v": error_v / x[0].size}


def unguided(t: PerExample) -> Guidance:
    """Omega = 1 at all times: no guidance, in examples as many as t."""
    return Guidance(jnp.ones_like(t), jnp.zeros_like(t), jnp.ones_like(t))


def power_law_guidance(key: Key, n: int, *, beta: float = 1.0, largest: float = 8.0) -> Guidance:
    """Omega in [1, largest] with density ~ omega^-beta, low ~ U(0, 0.5) and high ~ U(0.5, 1): the paper's law.

    With beta = 1 it is largest^U(0, 1), of median 2.83 for 8.

    Raises:
        ValueError: unless largest > 1.
    """
    if not largest > 1:
        raise ValueError(f"guidance scales lie in [1, largest], got {largest=}")
    key_omega, key_low, key_high = jax.random.split(key, 3)
    u = jax.random.uniform(key_omega, (n,))
    power = 1 - beta
    omega = largest**u if power == 0 else (1 + u * (largest**power - 1)) ** (1 / power)
    low = jax.random.uniform(key_low, (n,), maxval=0.5)
    return Guidance(omega, low, jax.random.uniform(key_high, (n,), minval=0.5))
