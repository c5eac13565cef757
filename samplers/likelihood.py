"""The likelihood that a flow gives to data: the change of variables along its ODE."""

import math

import jax
import jax.numpy as jnp

from .noise import fold_in
from .types import Array, Batch, Keys, Net, Path, PerExample, Times, full, intervals


def log_likelihood(net: Net, x: Batch, times: Times, keys: Keys, *, path: Path, end: float) -> PerExample:
    """log p(x) at time `end`: log N(x_T; 0, sigma_T^2) plus the divergence of the velocity on x's way up to x_T.

    The state and the divergence take Heun steps from `end` up to times[0] (Chen et al. 2018; Song et al. 2021, eq. 39).
    The divergence is Hutchinson's estimate with one vector of signs for each example, kept throughout: unbiased, and
    exact where the velocity's Jacobian is diagonal. Average over `keys` for less noise.

    Data evaluated as they are at a small `end` count as noised by sigma(end), in which their density is. To add that
    noise and then to correct for it, as CTM's code does, is another quantity, and the correction there is at a noise
    level of 0.413 instead of 0.002: on N(0, 0.25) it says 7.77 bits per dimension for 8.06.

    Args:
        net: Velocity v(x, t) = dx/dt with a forward-mode derivative in x; of a denoiser by
            `losses.conversions.denoiser_to_velocity`, of CTM's g by that of g(x, t, t).
        x: Data [B, ...], the state at `end`.
        times: Descending times of the steps, as for a sampler; `grids.karras`, whose first is where noise is all.
        keys: One for each example; draws the signs.
        path: Its sigma(times[0]) is the standard deviation of the start, where what is left of the data is neglected.
        end: Time of the data, above 0: 0.002 in CTM.

    Returns:
        Natural logarithms of densities over the elements of an example [B], float32 or wider.

    Raises:
        ValueError: if `end` is not positive, or the times do not fall to it.
    """
    if not end > 0:
        raise ValueError(f"a likelihood needs an end above 0, where velocities are 0/0, got {end}")
    signs = jax.vmap(lambda key: jax.random.rademacher(key, x.shape[1:], x.dtype))(fold_in(keys, 0))

    def rates(x: Batch, t: Array) -> tuple[Batch, PerExample]:
        v, change = jax.jvp(lambda x: net(x, full(t, x)), (x,), (signs,))
        return v, _sum(signs * change)

    def step(state: tuple[Batch, PerExample], interval: Array) -> tuple[tuple[Batch, PerExample], None]:
        (x, total), (later, t) = state, interval
        size = later - t
        v, divergence = rates(x, t)
        v_later, divergence_later = rates((x + size * v).astype(x.dtype), later)
        x = (x + size * (v + v_later) / 2).astype(x.dtype)
        return (x, total + size * (divergence + divergence_later) / 2), None

    steps = intervals(times, end=end)
    start = (x, jnp.zeros(len(x), jnp.result_type(float)))
    (x, total), _ = jax.lax.scan(step, start, steps[::-1])
    sigma = path.sigma(steps[0, 0])
    return total - _sum(jnp.square(x / sigma)) / 2 - x[0].size * (jnp.log(sigma) + math.log(2 * math.pi) / 2)


def bits_per_dimension(log_likelihood: PerExample, *, elements: int, levels: int = 256) -> PerExample:
    """The negative of a log likelihood in bits for each element, for data of so many levels scaled to [-1, 1].

    A density of x in [-1, 1] is one of levels in units of 2 / levels: that adds log2(levels / 2), 7 for 8 bits. It
    bounds the bits of a code for the levels from above if each has uniform noise of its own width added (Theis 2016).
    """
    return -log_likelihood / (elements * math.log(2)) + math.log2(levels / 2)


def _sum(x: Batch) -> PerExample:
    return jnp.sum(x.reshape(len(x), -1), axis=1)
