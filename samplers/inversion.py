"""From data up to the noise that a flow makes them of."""

import jax

from .heun import heun_step
from .types import Array, Batch, Net, Times, intervals


def invert(net: Net, x: Batch, times: Times, *, end: float) -> Batch:
    """State at times[0] of the trajectory through x at time `end`: Heun steps upwards, 2N calls for N times.

    The way back of `heun` on the same times, up to the errors of both. Divided by the path's sigma at times[0], where
    little is left of the data, it is the noise of the pair (Lee et al. 2024).

    Args:
        net: Velocity v(x, t) = dx/dt.
        x: State at `end`, [B, ...]: data with as much noise as the path has there.
        times: Descending times of the steps, as for a sampler.
        end: Time of x, above 0, where velocities are 0/0 on most paths.

    Raises:
        ValueError: if `end` is not positive, or the times do not fall to it.
    """
    if not end > 0:
        raise ValueError(f"an inversion needs an end above 0, where velocities are 0/0, got {end}")

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        later, t = interval
        return heun_step(net, x, t, later), None

    return jax.lax.scan(step, x, intervals(times, end=end)[::-1])[0]
