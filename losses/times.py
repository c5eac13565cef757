"""Time laws: how often each noise level is trained. A law is `times(key, n) -> t[n]`; bind its numbers with partial."""

import math

import jax
import jax.numpy as jnp

from .types import Array, Key, PerExample


def uniform(key: Key, n: int, *, low: float = 0.0, high: float = 1.0) -> PerExample:
    """T ~ U(low, high), the rectified-flow default.

    Raises:
        ValueError: unless 0 <= low < high.
    """
    if not 0 <= low < high:
        raise ValueError(f"uniform times need 0 <= low < high, got low={low}, high={high}")
    return jax.random.uniform(key, (n,), minval=low, maxval=high)


def lognormal(key: Key, n: int, *, mean: float, std: float) -> PerExample:
    """ln t ~ N(mean, std^2); EDM trains with mean -1.2, std 1.2 (Karras et al. 2022, table 1).

    Raises:
        ValueError: if std is negative.
    """
    if not std >= 0:
        raise ValueError(f"lognormal times need std >= 0, got {std}")
    return jnp.exp(mean + std * jax.random.normal(key, (n,)))


def trig_lognormal(key: Key, n: int, *, mean: float = -1.0, std: float = 1.4, sigma_data: float = 0.5) -> PerExample:
    """TrigFlow's angle t = arctan(sigma / sigma_data) in (0, pi/2) with ln sigma ~ N(mean, std^2) (Lu & Song 2024).

    Raises:
        ValueError: if sigma_data is not positive or std is negative.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data}")
    return jnp.arctan(lognormal(key, n, mean=mean, std=std) / sigma_data)


def logit_normal(key: Key, n: int, *, mean: float = 0.0, std: float = 1.0) -> PerExample:
    """logit t ~ N(mean, std^2), t in (0, 1) (Esser et al. 2024, section 3.1; positive mean favours noise here).

    Raises:
        ValueError: if std is negative.
    """
    if not std >= 0:
        raise ValueError(f"logit-normal times need std >= 0, got {std}")
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, (n,)))


def u_shaped(key: Key, n: int, *, a: float = 4.0, margin: float = 1e-5) -> PerExample:
    """Density proportional to e^(a t) + e^(a (1 - t)), symmetric, on [margin, 1 - margin]: 2-Rectified Flow++'s.

    Drawn by the inverse of its distribution function, 1/2 + sinh(a (t - 1/2)) / (2 sinh(a / 2)) without a margin. The
    paper's text has e^(a u) + e^(-a u), which is not symmetric; this is its code's law (Lee et al. 2024).

    Raises:
        ValueError: unless a > 0 and 0 <= margin < 1/2.
    """
    if not (a > 0 and 0 <= margin < 0.5):
        raise ValueError(f"u_shaped times need a > 0 and 0 <= margin < 0.5, got a={a}, margin={margin}")
    u = jax.random.uniform(key, (n,))
    t = 0.5 + jnp.arcsinh((2 * u - 1) * math.sinh(a / 2)) / a
    return margin + (1 - 2 * margin) * t


def ctm(
    key: Key,
    n: int,
    *,
    mean: float = -1.2,
    std: float = 1.2,
    share: float = 0.7,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> PerExample:
    """Every other time EDM's lognormal, and every other one of the noisier part of a Karras grid: CTM's denoising term.

    The second kind is uniform in t^(1/rho) over that share of the way from sigma_max to sigma_min, by default down to
    0.318 (Kim et al. 2023's code).
    """
    key_low, key_high = jax.random.split(key)
    root_min, root_max = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    high = (root_max - share * jax.random.uniform(key_high, (n,)) * (root_max - root_min)) ** rho
    return jnp.where(jnp.arange(n) % 2 == 0, lognormal(key_low, n, mean=mean, std=std), high)


def discrete(key: Key, n: int, *, grid: Array, probabilities: Array | None = None) -> PerExample:
    """T drawn from the entries of a one-dimensional grid, uniformly or with the given probabilities.

    Raises:
        ValueError: if grid is not one-dimensional and non-empty.
    """
    grid = jnp.asarray(grid, jnp.float32)
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError(f"a grid of times is one-dimensional and not empty, got shape {grid.shape}")
    return jax.random.choice(key, grid, (n,), p=probabilities)
