"""Euler's method on the flow ODE."""

import jax

from .types import Array, Batch, Net, Times, full, intervals


def euler(net: Net, x: Batch, times: Times, *, end: float = 0.0) -> Batch:
    """x + (s - t) v(x, t) over each interval from t down to s; first order, one call a step.

    Args:
        net: Velocity v(x, t) = dx/dt.
        x: State at times[0], [B, ...].
        times: Descending times at which the velocity is taken.
        end: Time of the returned state.
    """

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        t, s = interval
        return (x + (s - t) * net(x, full(t, x))).astype(x.dtype), None

    return jax.lax.scan(step, x, intervals(times, end=end))[0]
