"""MeanFlow: the mean velocity of a trajectory between two times, learned from its own time derivative."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from . import pairs as pair_laws
from ._shapes import Array, Bool, Int
from .couplings import independent
from .distances import l2
from .paths import at_least_float32, expand, interpolate, linear, velocity
from .types import Batch, Coupling, Key, Loss, Pairs, PerExample
from .weights import inverse_power

Labels: TypeAlias = Int[Array, "batch"]

LabelledVelocity: TypeAlias = Callable[[Array, Array, Array, Any], Array]
"""u(x_t[B, ...], t[B], s[B], y) -> [B, ...], the mean velocity between s <= t and t given the conditions y"""

Target: TypeAlias = Callable[[Array, Array, Array, Any], Array]
"""target(v[B, ...], x_t[B, ...], t[B], y) -> [B, ...], the velocity that is learned in the place of v"""


def mean_flow(
    u: LabelledVelocity,
    x: Batch,
    key: Key,
    *,
    y: Any = None,
    pairs: Pairs = pair_laws.sorted_logit_normal,
    jump_share: float = 0.25,
    target: Target | None = None,
    p: float = 1.0,
    c: float = 0.01,
    coupling: Coupling = independent,
) -> Loss:
    """e^2 / stop_gradient((e^2 + c)^p), e = u - stop_gradient(v - (t - s) du/dt) (Geng et al. 2025, alg. 1).

    du/dt is taken along the trajectory, with tangents (v, 1, 0) of (x_t, t, s). It is multiplied by 0 where s = t, so
    those examples are set apart before it is taken: the same loss for less work.
    v is one pair's velocity and not its mean, so the least e^2 is not 0.

    Args:
        u: Mean velocity, called as u(x_t, t, s, y), with a forward-mode derivative. One call gives value and
            derivative, so both share a dropout mask.
        x: Data [B, ...].
        key: Draws t, s and z.
        y: What u is conditioned on, any tree of arrays [B, ...]: labels. It is not in the closure of u because the
            examples are called in two parts.
        pairs: Law of (t, s, weight) where s < t; elsewhere s is t.
        jump_share: Share of the examples that have s < t, in (0, 1]: 1/4 in the paper's ImageNet runs, whose code
            takes the last quarter of a batch. Here they are the first of every four, which each device has.
        target: `guided_velocity` with its numbers bound; by default v itself.
        p: Power of the adaptive weight; with 1 the loss is near 1 whatever the error.
        c: What is added to the error in it.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `s` and `distance` (e^2 over the elements, a mean).

    Raises:
        ValueError: if the batch is not of whole groups of this share, or c is not positive.
    """
    jumping, staying, join = parts(len(x), jump_share)
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    s = jnp.where(which_jump(len(x), jump_share), s, t)
    x_t, v = interpolate(linear, x, z, t), velocity(linear, x, z, t)
    if target is not None:
        v = jax.lax.stop_gradient(at_least_float32(target(v, x_t, t, y)))

    first = jumping((x_t, t, s, v, y))
    u_t, du = total_derivative(u, *first)
    x_0, t_0, s_0, v_0, _ = first
    error = l2(u_t, jax.lax.stop_gradient(v_0 - expand(t_0 - s_0, x_0) * du))
    if jump_share < 1:
        x_1, t_1, _, v_1, y_1 = staying((x_t, t, s, v, y))
        error = join(error, l2(at_least_float32(u(x_1, t_1, t_1, y_1)), v_1))
    return weight * inverse_power(error, p=p, c=c), {"t": t, "s": s, "distance": error / x[0].size}


def total_derivative(
    u: LabelledVelocity, x_t: Batch, t: PerExample, s: PerExample, v: Batch, y: Any
) -> tuple[Batch, Batch]:
    """u(x_t, t, s, y) and its derivative along v in x_t and 1 in t with s held, both float32 or wider."""
    value, rate = jax.jvp(lambda x, t, s: u(x, t, s, y), (x_t, t, s), (v, jnp.ones_like(t), jnp.zeros_like(s)))
    return at_least_float32(value), at_least_float32(rate)


def guided_velocity(
    v: Batch,
    x_t: Batch,
    t: PerExample,
    y: Labels,
    *,
    u: LabelledVelocity,
    null: int,
    omega: float,
    kappa: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Batch:
    """omega v + (1 - omega - kappa) u(x_t, t, t, null) + kappa u(x_t, t, t, y), and v where y is null.

    Guidance inside the target (Geng et al. 2025): the network that learns it has the scale omega / (1 - kappa) built
    in, and one call samples with guidance. Outside of the interval of t, whose ends belong to it, the target is v.

    Args:
        v: Velocity of each pair, [B, ...].
        x_t: State [B, ...].
        t: Its time [B].
        y: Labels [B], some of them `null`: those examples have the target v, and train what u(null) asks for.
        u: The network at its present parameters; no gradient flows.
        null: The label that means none.
        omega: Weight of v.
        kappa: Weight of the network's own guided velocity; 0 saves half of what is computed.
        interval: Times that are guided.

    Raises:
        ValueError: unless 0 <= kappa < 1 and omega is finite and 0 <= interval[0] < interval[1].
    """
    low, high = interval
    if not (0 <= kappa < 1 and math.isfinite(omega) and 0 <= low < high):
        raise ValueError(
            f"guidance needs 0 <= kappa < 1, a finite omega and 0 <= low < high, got {omega=}, {kappa=}, {interval=}"
        )
    nulls = jnp.full_like(y, null)
    if kappa:
        # One call, so that the weights are read once, and gathered once where devices share them.
        times = paired(t, t)
        u_null, u_y = unpaired(at_least_float32(u(paired(x_t, x_t), times, times, paired(nulls, y))))
        guided = omega * v + (1 - omega - kappa) * u_null + kappa * u_y
    else:
        guided = omega * v + (1 - omega) * at_least_float32(u(x_t, t, t, nulls))
    share = jnp.where((low <= t) & (t <= high) & (y != null), 1.0, 0.0)
    return jax.lax.stop_gradient(jnp.where(expand(share, v) > 0, guided, v))


def paired(a: Array, b: Array) -> Array:
    """Two [B, ...] as one [2 B, ...], rows of one example side by side: none travels between devices."""
    return jnp.stack((a, b), axis=1).reshape(-1, *a.shape[1:])


def unpaired(both: Array) -> tuple[Array, Array]:
    """The two of which `paired` made one."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]


# ---- Examples with s < t and examples with s = t ---------------------------------------------------------------------

Part: TypeAlias = Callable[[Any], Any]
"""A tree of arrays [B, ...] -> the same tree of some of the examples"""


def which_jump(n: int, share: float) -> Bool[Array, "batch"]:
    """Which examples of a batch of n have s < t: with a share of 3/4 the first three of every four.

    Raises:
        ValueError: unless 0 < share <= 1 and n is made of whole groups.
    """
    few, group = _groups(n, share)
    return jnp.arange(n) % group < few


def parts(n: int, share: float) -> tuple[Part, Part, Callable[[Array, Array], Array]]:
    """How to take the examples with s < t, how to take the others, and how to bring the two together again.

    Raises:
        ValueError: unless 0 < share <= 1 and n is made of whole groups.
    """
    few, group = _groups(n, share)

    def taken(members: slice, tree: Any) -> Any:
        def take(a: Array) -> Array:
            return a.reshape(n // group, group, *a.shape[1:])[:, members].reshape(-1, *a.shape[1:])

        return jax.tree.map(take, tree)

    def join(first: Array, rest: Array) -> Array:
        shape = first.shape[1:]
        both = first.reshape(n // group, few, *shape), rest.reshape(n // group, group - few, *shape)
        return jnp.concatenate(both, axis=1).reshape(n, *shape)

    return partial(taken, slice(0, few)), partial(taken, slice(few, None)), join


def _groups(n: int, share: float) -> tuple[int, int]:
    """(3, 4) for a share of 3/4: of a batch that is sharded over devices each takes its own examples apart."""
    if not 0 < share <= 1:
        raise ValueError(f"the share of examples with s < t must lie in (0, 1], got {share}")
    few, group = Fraction(share).limit_denominator(64).as_integer_ratio()
    if few == 0 or n % group:
        raise ValueError(f"{few} of every {group} examples shall have s < t, and the batch has {n}")
    return few, group
