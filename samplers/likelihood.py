"""The likelihood that a flow gives to data: the change of variables along its ODE."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from .noise import fold_in
from .types import Array, Batch, Keys, Net, Path, PerExample, Times, full, intervals

Rates: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""rates(x[B, ...], t[B]) -> velocity v[B, ...] and its divergence [B]"""


def log_likelihood(net: Net, x: Batch, times: Times, keys: Keys | None, *, path: Path, end: float) -> PerExample:
    """log p(x) at time `end`: log N(x_T; 0, sigma_T^2) plus the divergence of the velocity on x's way up to x_T.

    The state and the divergence take Heun steps from `end` up to times[0] (Chen et al. 2018; Song et al. 2021, eq. 39).

    Data evaluated as they are at a small `end` count as noised by sigma(end), in which their density is. To add that
    noise and then to correct for it, as CTM's code does, is another quantity, and the correction there is at a noise
    level of 0.413 instead of 0.002: on N(0, 0.25) it says 7.77 bits per dimension for 8.06.

    Args:
        net: Velocity v(x, t) = dx/dt with a forward-mode derivative in x; of a denoiser by
            `losses.conversions.denoiser_to_velocity`, of CTM's g by that of g(x, t, t).
        x: Data [B, ...], the state at `end`.
        times: Descending times of the steps, as for a sampler; `grids.karras`, whose first is where noise is all, or
            `grids.linear`, whose first is pure noise.
        keys: One for each example, of `hutchinson`; None for the divergence of `exact`.
        path: Its sigma(times[0]) is the standard deviation of the start, where what is left of the data is neglected.
        end: Time of the data: 0.002 in CTM, 0 for a network that is a velocity and finite there. The velocity of a
            denoiser is 0/0 at 0.

    Returns:
        Natural logarithms of densities over the elements of an example [B], float32 or wider.

    Raises:
        ValueError: if the times do not fall to `end` >= 0.
    """
    steps = intervals(times, end=end)
    rates = exact(net) if keys is None else hutchinson(net, keys, x)

    def step(state: tuple[Batch, PerExample], interval: Array) -> tuple[tuple[Batch, PerExample], None]:
        (x, total), (later, t) = state, interval
        size = later - t
        v, divergence = rates(x, full(t, x))
        v_later, divergence_later = rates((x + size * v).astype(x.dtype), full(later, x))
        x = (x + size * (v + v_later) / 2).astype(x.dtype)
        return (x, total + size * (divergence + divergence_later) / 2), None

    start = (x, jnp.zeros(len(x), jnp.result_type(float)))
    (x, total), _ = jax.lax.scan(step, start, steps[::-1])
    return total + log_noise(x, path.sigma(steps[0, 0]))


def hutchinson(net: Net, keys: Keys, like: Batch) -> Rates:
    """The velocity with an estimate of its divergence: the change along one vector of signs, projected on it.

    Unbiased, and exact where the Jacobian is diagonal; average over `keys` for less noise. Each example keeps its
    vector in every call, so that the ODE of an adaptive solver is one.
    """
    signs = jax.vmap(lambda key: jax.random.rademacher(key, like.shape[1:], like.dtype))(fold_in(keys, 0))

    def rates(x: Batch, t: PerExample) -> tuple[Batch, PerExample]:
        v, change = jax.jvp(lambda x: net(x, t), (x,), (signs,))
        return v, _sum(signs * change)

    return rates


def exact(net: Net) -> Rates:
    """The velocity with its divergence, by one derivative for each element of an example: for few elements."""

    def rates(x: Batch, t: PerExample) -> tuple[Batch, PerExample]:
        v, derivative = jax.linearize(lambda x: net(x, t), x)

        def add(total: PerExample, element: Array) -> tuple[PerExample, None]:
            unit = jnp.zeros(x[0].size, x.dtype).at[element].set(1).reshape(x.shape[1:])
            return total + _sum(unit * derivative(jnp.broadcast_to(unit, x.shape))), None

        return v, jax.lax.scan(add, jnp.zeros(len(x), v.dtype), jnp.arange(x[0].size))[0]

    return rates


def log_noise(x: Batch, sigma: Array) -> PerExample:
    """log N(x; 0, sigma^2 I)."""
    return -_sum(jnp.square(x / sigma)) / 2 - x[0].size * (jnp.log(sigma) + math.log(2 * math.pi) / 2)


def bits_per_dimension(log_likelihood: PerExample, *, elements: int, levels: int = 256) -> PerExample:
    """The negative of a log likelihood in bits for each element, for data of so many levels scaled to [-1, 1].

    A density of x in [-1, 1] is one of levels in units of 2 / levels: that adds log2(levels / 2), 7 for 8 bits. It
    bounds the bits of a code for the levels from above if each has uniform noise of its own width added (Theis 2016).
    """
    return -log_likelihood / (elements * math.log(2)) + math.log2(levels / 2)


def _sum(x: Batch) -> PerExample:
    return jnp.sum(x.reshape(len(x), -1), axis=1)
