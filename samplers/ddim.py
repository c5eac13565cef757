"""DDIM: the deterministic sampler that holds the predicted data and noise fixed over each step."""

import jax

from .types import Array, Batch, Net, Path, Times, full, intervals


def ddim(net: Net, x: Batch, times: Times, *, path: Path, end: float = 0.0) -> Batch:
    """x_s = alpha_s D + (sigma_s / sigma_t) (x_t - alpha_t D) with D = net(x_t, t) (Song et al. 2020, eq. 12).

    On the EDM path it is Euler's method; on any path it is exact where D and the noise are constant.

    Args:
        net: Denoiser D(x_t, t) on `path`.
        x: State at times[0], [B, ...].
        times: Descending times at which the denoiser is called; sigma must be positive there.
        path: x_t = alpha x + sigma z.
        end: Time of the returned state.
    """

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        t, s = interval
        denoised = net(x, full(t, x))
        ratio = path.sigma(s) / path.sigma(t)
        return (path.alpha(s) * denoised + ratio * (x - path.alpha(t) * denoised)).astype(x.dtype), None

    return jax.lax.scan(step, x, intervals(times, end=end))[0]
