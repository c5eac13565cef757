"""Heun's method on the flow ODE."""

import jax

from .euler import euler
from .types import Array, Batch, Net, Times, check_times, full, intervals


def heun(net: Net, x: Batch, times: Times, *, end: float = 0.0) -> Batch:
    """Euler step, then the mean of the velocities at both ends; second order (Karras et al. 2022, alg. 1).

    The last step is a plain Euler step when it ends at 0, where the velocity of most paths is 0/0: N times cost
    2N - 1 calls. With end > 0 all steps are corrected and N times cost 2N.

    Args:
        net: Velocity v(x, t) = dx/dt.
        x: State at times[0], [B, ...].
        times: Descending times of the steps.
        end: Time of the returned state.
    """

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        return heun_step(net, x, interval[0], interval[1]), None

    steps = intervals(times, end=end)
    corrected = steps if end > 0 else steps[:-1]
    if len(corrected) > 0:
        x = jax.lax.scan(step, x, corrected)[0]
    return x if end > 0 else euler(net, x, check_times(times)[-1:])


def heun_step(net: Net, x: Batch, t: Array, s: Array) -> Batch:
    """One corrected step from t to s > 0, two calls of the velocity."""
    v = net(x, full(t, x))
    v_end = net((x + (s - t) * v).astype(x.dtype), full(s, x))
    return (x + (s - t) * (v + v_end) / 2).astype(x.dtype)
