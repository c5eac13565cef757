"""How far a flow's trajectories are from straight lines."""

import jax
import jax.numpy as jnp

from .types import Array, Batch, Net, PerExample, Times, full, intervals


def straightness(net: Net, x: Batch, times: Times, *, end: float = 0.0) -> PerExample:
    """Mean over time of |v - (x_T - x_end) / (T - end)|^2 along Euler's trajectory, summed over elements [B].

    0 if and only if each trajectory is a straight line at constant speed, which one step follows exactly. On many times
    the integral S of Liu et al. 2022, section 2.2; with one time it says nothing and is 0.

    Args:
        net: Velocity v(x, t) = dx/dt.
        x: State at times[0], [B, ...].
        times: Descending times at which the velocity is taken; each counts as long as its step is.
        end: Time at which the trajectories end.
    """

    def step(carry: tuple[Batch, Batch, PerExample, Array], interval: Array) -> tuple[tuple, None]:
        x, mean, squares, passed = carry
        t, s = interval
        v = net(x, full(t, x))
        # The mean and the sum of squares about it as they grow: the difference of two large sums would lose all digits.
        before, passed = v - mean, passed + (t - s)
        mean = mean + (t - s) / passed * before
        squares = squares + (t - s) * jnp.sum((before * (v - mean)).reshape(len(x), -1), axis=1)
        return ((x + (s - t) * v).astype(x.dtype), mean, squares, passed), None

    steps = intervals(times, end=end)
    zeros = jnp.zeros(x.shape, steps.dtype)
    start = (x, zeros, jnp.zeros(len(x), steps.dtype), jnp.zeros((), steps.dtype))
    (_, _, squares, passed), _ = jax.lax.scan(step, start, steps)
    return squares / passed
