"""aDDIM: DDIM that puts back the variance which a mean prediction lacks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .types import Array, Batch, Net, Path, PerExample, Times, full, intervals


def addim(
    net: Net,
    x: Batch,
    times: Times,
    *,
    path: Path,
    variance: Callable[[Array], Array] | None = None,
    end: float = 0.0,
) -> Batch:
    """`ddim` whose predicted noise is made longer by as much as the denoiser is uncertain (Heek et al. 2024).

    A denoiser predicts a mean, so DDIM loses variance at every step; here each sample gets it back along its own
    predicted noise, without randomness. It takes prediction and noise to be orthogonal, as they are about in many
    dimensions with little structure. On Gaussian data they are parallel and the full variance is too much.

    Args:
        net: Denoiser D(x_t, t) on `path`.
        x: State at times[0], [B, ...].
        times: Descending times at which the denoiser is called; sigma must be positive there.
        path: x_t = alpha x + sigma z.
        variance: variance(t[B]) -> [B], of the data about D per element, given x_t; by default the paper's
            `assumed_variance`. The step to 0 adds it too.
        end: Time of the returned state.
    """

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        t, s = full(interval[0], x), full(interval[1], x)
        x_variance = assumed_variance(t, path=path) if variance is None else variance(t)
        return addim_step(x, net(x, t), x_variance, t, s, path=path).astype(x.dtype), None

    return jax.lax.scan(step, x, intervals(times, end=end))[0]


def addim_step(x_t: Batch, denoised: Batch, variance: PerExample, t: PerExample, s: PerExample, *, path: Path) -> Batch:
    """x_s = alpha_s D + sqrt(sigma_s^2 + d z_var / |eps|^2) eps, one step of `addim`.

    eps = (x_t - alpha_t D) / sigma_t and z_var = (alpha_s - alpha_t sigma_s / sigma_t)^2 x_var.

    Args:
        x_t: State at t, [B, ...]; d elements each.
        denoised: D, the estimate of its data, [B, ...].
        variance: x_var, variance of the data about D per element, [B]; 0 is a step of DDIM.
        t: Time of x_t, [B]; sigma must be positive there.
        s: Time to go to, [B].
        path: x_t = alpha x + sigma z.
    """

    def expand(c: PerExample) -> Array:
        return c.reshape(c.shape + (1,) * (x_t.ndim - 1))

    alpha_t, sigma_t, alpha_s, sigma_s = (
        expand(c) for c in (path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s))
    )
    eps = (x_t - alpha_t * denoised) / sigma_t
    z_variance = (alpha_s - alpha_t * sigma_s / sigma_t) ** 2 * expand(variance)
    mean_square = jnp.mean(eps**2, axis=tuple(range(1, x_t.ndim)), keepdims=True)
    # The floor, and the square root of 1 in place of 0, keep 0/0 out of the value and the derivatives.
    squared = sigma_s**2 + z_variance / jnp.maximum(mean_square, 1e-12)
    length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return alpha_s * denoised + length * eps


def assumed_variance(t: PerExample, *, path: Path) -> PerExample:
    """0.1 / (2 + SNR) with SNR = alpha^2 / sigma^2: what the paper assumes of images in [-1, 1]."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return 0.1 * sigma**2 / (2 * sigma**2 + alpha**2)
