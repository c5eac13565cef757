"""Paths from data to noise: x_t = alpha(t) x + sigma(t) z with z ~ N(0, I), t = 0 data, t growing with noise.

A path is its two coefficients. Velocities come from differentiating them, never from typed-in formulas.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .types import Array, Batch, Factor, PerExample, Schedule


class Path(NamedTuple):
    """The two coefficients of x_t = alpha(t) x + sigma(t) z, each a differentiable function of t[B]."""

    alpha: Schedule
    sigma: Schedule


class Coefficients(NamedTuple):
    """alpha, sigma and their time derivatives at t, shaped to multiply a batch: [B, 1, ..., 1]."""

    alpha: Factor
    sigma: Factor
    alpha_rate: Factor
    sigma_rate: Factor


edm = Path(alpha=jnp.ones_like, sigma=lambda t: t)
"""Variance exploding: x + t z, t in [0, inf); t is the noise standard deviation (Karras et al. 2022)."""

linear = Path(alpha=lambda t: 1.0 - t, sigma=lambda t: t)
"""Straight lines: (1 - t) x + t z, t in [0, 1] (Liu et al. 2022; Lipman et al. 2022, with time reversed)."""


def linear_to(sigma_max: float = 80.0) -> Path:
    """The straight lines with the noise level as time: (1 - t/sigma_max) x + t z, t in [0, sigma_max].

    `scaled(linear, sigma_max)` at t/sigma_max. The linear kernel of Silvestri et al. 2025.

    Raises:
        ValueError: if sigma_max is not positive.
    """
    if not sigma_max > 0:
        raise ValueError(f"sigma_max must be positive, got {sigma_max}")
    return Path(alpha=lambda t: 1.0 - t / sigma_max, sigma=lambda t: t)


trig = Path(alpha=jnp.cos, sigma=jnp.sin)
"""TrigFlow with sigma_data = 1: cos(t) x + sin(t) z, t in [0, pi/2] (Lu & Song 2024)."""

cosine = Path(alpha=lambda t: jnp.cos(math.pi / 2 * t), sigma=lambda t: jnp.sin(math.pi / 2 * t))
"""Variance preserving cosine: cos(pi t/2) x + sin(pi t/2) z, t in [0, 1] (Nichol & Dhariwal 2021, unshifted)."""


def linear_beta(beta_min: float = 0.1, beta_max: float = 20.0) -> Path:
    """Variance preserving path whose beta(t) rises linearly; t in [0, 1] (Song et al. 2021, VP-SDE).

    alpha = exp(-B/2), sigma = sqrt(1 - exp(-B)) with B(t) = t beta_min + t^2 (beta_max - beta_min) / 2. At t = 1
    alpha is about 0.0066 for the defaults, not 0. The derivative of sigma is infinite at t = 0.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.
    """
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"linear_beta needs 0 < beta_min <= beta_max, got beta_min={beta_min}, beta_max={beta_max}")

    def integral(t):
        return t * beta_min + 0.5 * t**2 * (beta_max - beta_min)

    return Path(alpha=lambda t: jnp.exp(-0.5 * integral(t)), sigma=lambda t: jnp.sqrt(-jnp.expm1(-integral(t))))


def scaled_linear_beta(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Path:
    """Stable Diffusion's schedule, which LCM, TCD and PCM inherit; t in [0, steps - 1] is their timestep.

    alpha(i)^2 = prod_{j <= i} (1 - beta_j) for an integer i, where sqrt(beta_j) rises linearly from sqrt(first) to
    sqrt(last) (Rombach et al. 2022; DDPM's alpha bar, from a table made in float64). In between ln alpha is linear in
    t: beta is constant from one integer to the next, and velocities jump there, by 0.6 % at most.

    Neither end is what it is on other paths. t = 0 is not clean data: sigma(0) = sqrt(first) = 0.0292. And at the last
    step alpha is 0.0683, not 0.

    Raises:
        ValueError: unless steps >= 2 and 0 < first <= last < 1.
    """
    if steps < 2 or not 0 < first <= last < 1:
        raise ValueError(
            f"scaled_linear_beta needs steps >= 2 and 0 < first <= last < 1, got {steps=}, first={first}, last={last}"
        )
    table = np.cumsum(np.log1p(-(np.linspace(first**0.5, last**0.5, steps) ** 2)))

    def log_squared_alpha(t):
        # Faster to compile than jnp.interp, and its derivative is not lost at the last timestep.
        i = jnp.clip(jnp.floor(t), 0, steps - 2).astype(jnp.int32)
        low, high = (jnp.asarray(table, t.dtype)[j] for j in (i, i + 1))
        return (1 - (t - i)) * low + (t - i) * high

    return Path(
        alpha=lambda t: jnp.exp(0.5 * log_squared_alpha(t)), sigma=lambda t: jnp.sqrt(-jnp.expm1(log_squared_alpha(t)))
    )


def scaled(path: Path, sigma_data: float) -> Path:
    """The same path with noise of standard deviation sigma_data; `scaled(trig, 0.5)` is sCM's TrigFlow.

    Raises:
        ValueError: if sigma_data is not positive.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data}")
    return Path(alpha=path.alpha, sigma=lambda t: sigma_data * path.sigma(t))


def expand(t: PerExample, like: Batch) -> Factor:
    """t[B] as [B, 1, ..., 1] with as many axes as `like`, so that it multiplies examples and not pixels."""
    return t.reshape(t.shape + (1,) * (like.ndim - 1))


def at_least_float32(x: Array) -> Array:
    """X in float32, or in float64 if it is that already: loss mathematics never runs in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def coefficients(path: Path, t: PerExample, like: Batch) -> Coefficients:
    """alpha, sigma, alpha', sigma' at t in float32 or wider, each [B, 1, ..., 1] with as many axes as `like`."""
    t = at_least_float32(t)
    alpha, alpha_rate = jax.jvp(path.alpha, (t,), (jnp.ones_like(t),))
    sigma, sigma_rate = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
    return Coefficients(*(expand(c, like) for c in (alpha, sigma, alpha_rate, sigma_rate)))


def interpolate(path: Path, x: Batch, z: Batch, t: PerExample) -> Batch:
    """x_t = alpha(t) x + sigma(t) z."""
    return expand(path.alpha(t), x) * x + expand(path.sigma(t), z) * z


def velocity(path: Path, x: Batch, z: Batch, t: PerExample) -> Batch:
    """Conditional velocity v = dx_t/dt = alpha'(t) x + sigma'(t) z."""
    c = coefficients(path, t, x)
    return c.alpha_rate * x + c.sigma_rate * z
