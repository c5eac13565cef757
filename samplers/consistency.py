"""Multistep sampling of a consistency function."""

import jax
import jax.numpy as jnp

from .noise import fresh
from .types import Array, Batch, Keys, Net, Noise, Path, Times, check_times, full


def multistep_consistency(
    net: Net, x: Batch, times: Times, keys: Keys, *, path: Path, sigma_min: float = 0.0, noise: Noise | None = None
) -> Batch:
    """Denoise at times[0], noise again to times[1], denoise, ...; never noises after the last denoise.

    Args:
        net: Consistency function f(x, t), an estimate of the data at the end of the trajectory.
        x: State at times[0], [B, ...]: sigma(times[0]) times standard noise.
        times: Descending times at which f is called; one time is one-step sampling.
        keys: One key for each sample, [B].
        path: Where to noise to: alpha(t) x + sigma(t) z.
        sigma_min: Noise that f leaves in its output. CM and iCT, whose f ends at 0.002, noise again with standard
            deviation sqrt(sigma(t)^2 - sigma_min^2); ECT and sCM, whose f ends at 0, with sigma(t).
        noise: What an estimate of the data is noised with; standard normal by default. A model with a learned coupling
            draws it given that estimate (Silvestri et al. 2025).

    Source: Song et al. 2023, alg. 1.

    Raises:
        ValueError: for times that do not fall strictly, or not above sigma_min.
    """
    grid = check_times(times, end=sigma_min)
    x = net(x, full(jnp.asarray(grid[0], jnp.result_type(float)), x)).astype(x.dtype)
    if len(grid) == 1:
        return x

    def noise_and_denoise(x: Batch, step: tuple[Array, Array]) -> tuple[Batch, None]:
        number, t = step
        sigma = jnp.sqrt(path.sigma(t) ** 2 - sigma_min**2)
        x_t = path.alpha(t) * x + sigma * (noise or fresh)(keys, number, x)
        return net(x_t, full(t, x)).astype(x.dtype), None

    later = jnp.asarray(grid[1:], jnp.result_type(float))
    return jax.lax.scan(noise_and_denoise, x, (1 + jnp.arange(len(later)), later))[0]
