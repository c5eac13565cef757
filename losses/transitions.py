"""Chains of Gaussian transitions from noise to data: a stochastic sampler, written as its coefficients."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .paths import Path, coefficients

Variance: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""variance(t[K], eta[K]) -> g^2 [K], variance of the noise that is added in one unit of time"""


class Transitions(NamedTuple):
    """x_{k+1} = state_k x_k + velocity_k v(x_k, t_k) + noise_k z_k, k = 0, ..., K - 1; float64 on the host.

    Attributes:
        start: standard deviation of x_0, sigma at times[0].
        times: t_k, descending [K].
        state: factor on the state [K].
        velocity: factor on the velocity, negative [K].
        noise: standard deviation of a transition, not negative [K].
    """

    start: float
    times: np.ndarray
    state: np.ndarray
    velocity: np.ndarray
    noise: np.ndarray


def memoryless(t: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """g^2 = 2 eta: the data are independent of the noise that the chain started from.

    Of all g^2 with that property it is the one by which a tilted chain has the velocity of the tilted data, so that it
    may be sampled in any way afterwards (Domingo-Enrich et al. 2024).
    """
    return 2 * eta


def no_noise(t: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """g^2 = 0: Euler's method for the ODE."""
    return np.zeros_like(t)


def euler_maruyama(
    path: Path,
    times: Sequence[float] | np.ndarray,
    *,
    offset: float,
    variance: Variance = memoryless,
    end: float = 0,
) -> Transitions:
    """Steps of h = t_k - t_{k+1} on dx = (-v + (g^2 / 2) score) h + g sqrt(h) z, whose marginals are the path's.

    They are so for any g^2. The score is (alpha'/alpha x - v) / eta with eta = sigma sigma' - sigma^2 alpha'/alpha, so
    memoryless steps go by -2 v + alpha'/alpha x.

    Args:
        path: x_t = alpha x + sigma z.
        times: Where the velocity is called, descending, with sigma > 0.
        offset: Added to alpha in alpha'/alpha, and to alpha and sigma in eta = (sigma / alpha) (alpha sigma' -
            alpha' sigma), which is infinite at noise and 0 at data. The paper's is the length of a step h: on the
            linear path g^2 = 2 (t + h) / (1 - t + h).
        variance: g^2, a function of t and eta.
        end: Time of the last state.

    Raises:
        ValueError: for times that do not fall strictly to the end, or an offset that is negative, or 0 where it is
            needed.
    """
    t, s = _steps(times, end)
    alpha, sigma, alpha_rate, sigma_rate = _at(path, t)
    if not offset >= 0 or (variance is memoryless and not (alpha + offset > 0).all()):
        raise ValueError(f"offset must be positive where alpha is 0, and nowhere negative, got {offset}")
    h = t - s
    scale = (sigma + offset) * (alpha * sigma_rate - alpha_rate * sigma)
    with np.errstate(divide="ignore"):
        half = variance(t, scale / (alpha + offset)) / 2
    return Transitions(
        start=float(sigma[0]),
        times=t,
        state=1 + h * half * alpha_rate / scale,
        velocity=-h * (1 + half * (alpha + offset) / scale),
        noise=np.sqrt(2 * half * h),
    )


def ancestral(path: Path, times: Sequence[float] | np.ndarray, *, end: float = 0) -> Transitions:
    """DDPM's steps, DDIM with eta = 1: x_s given x_t and the predicted data (Ho et al. 2020, eq. 6 and 7).

    They tend to memoryless `euler_maruyama` as they shrink, and need no offset where alpha is 0; with few
    steps they are nearer to the path's marginals. A step to sigma = 0 adds no noise. Adjoint Matching's code takes
    them on Stable Diffusion's schedule and ends at a small sigma.

    Raises:
        ValueError: for times that do not fall strictly to the end.
    """
    t, s = _steps(times, end)
    alpha, sigma, alpha_rate, sigma_rate = _at(path, t)
    alpha_s, sigma_s, _, _ = _at(path, s)
    ratio = alpha * sigma_s / (alpha_s * sigma)
    fresh = 1 - ratio**2
    # The predicted data is (sigma v - sigma' x) / (alpha' sigma - alpha sigma').
    share = alpha_s * fresh / (alpha_rate * sigma - alpha * sigma_rate)
    return Transitions(
        start=float(sigma[0]),
        times=t,
        state=ratio * sigma_s / sigma - share * sigma_rate,
        velocity=share * sigma,
        noise=sigma_s * np.sqrt(fresh),
    )


def _steps(times: Sequence[float] | np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.asarray(times, np.float64)
    if t.ndim != 1 or len(t) == 0 or not np.isfinite(t).all() or not (np.diff([*t, end]) < 0).all() or end < 0:
        raise ValueError(f"transitions need finite times that fall strictly to their end >= 0, got {t} and end {end}")
    return t, np.append(t[1:], end)


def _at(path: Path, t: np.ndarray) -> np.ndarray:
    """alpha, sigma and their rates, [4, K]; at data a rate may be infinite, and is not asked for."""
    with jax.ensure_compile_time_eval():
        times = jnp.asarray(t, jnp.result_type(float))
        return np.stack([np.asarray(c, np.float64) for c in coefficients(path, times, times)])
