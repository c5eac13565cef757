"""The update of 2-rectified flow++, which keeps the noise it started from."""

import jax

from .types import Array, Batch, Net, Times, check_times, full, intervals


def rectified(net: Net, x: Batch, times: Times, *, end: float = 0.0) -> Batch:
    """x_s = (1 - s) D + s z with D = x_t - t v(x_t, t) and z the noise of the start (Lee et al. 2024).

    Euler's method would go on with the noise that it predicts, x_t + (1 - t) v; here errors of the state are not handed
    on. One step is Euler's, and so is every step where trajectories are straight.

    Args:
        net: Velocity v(x, t) on the straight path.
        x: State at times[0], which is times[0] z: the data in it are neglected.
        times: Descending times at which the velocity is taken, at most 1; the authors' first is 1 - 1e-5.
        end: Time of the returned state.

    Raises:
        ValueError: for times above 1.
    """
    start = check_times(times, end=end)[0]
    if start > 1:
        raise ValueError(f"the straight path ends at time 1, got times from {start}")
    z = x / start

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        t, s = interval
        denoised = x - t * net(x, full(t, x))
        return ((1 - s) * denoised + s * z).astype(x.dtype), None

    return jax.lax.scan(step, x, intervals(times, end=end))[0]
