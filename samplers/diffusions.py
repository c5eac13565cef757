"""How much noise the reverse-time SDE of a flow adds and takes out: w(t[B]) -> [B], for `euler_maruyama`.

SiT's choices (Ma et al. 2024), with time as everywhere here: noise at t = 1, data at t = 0. Marginals are the same for
each; w is half the square of what stands before dW, and w(t) is per unit of the path's time.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from .types import Array, Path, PerExample

Diffusion: TypeAlias = Callable[[Array], Array]
"""diffusion(t[B]) -> [B], finite and at least 0"""


def score_based(t: PerExample, *, path: Path) -> PerExample:
    """sigma |W| / alpha, W = sigma alpha' - alpha sigma': the diffusion that the path belongs to (Song et al. 2021).

    t on the EDM path, t / (1 - t) on the straight one. Infinite where alpha = 0: start below pure noise.
    """
    alpha, alpha_rate = jax.jvp(path.alpha, (t,), (jnp.ones_like(t),))
    sigma, sigma_rate = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
    # A cosine rounds to either side of 0 at the end of its path.
    pure_noise = alpha <= jnp.finfo(alpha.dtype).eps
    wronskian = jnp.abs(sigma * alpha_rate - alpha * sigma_rate)
    return jnp.where(pure_noise, jnp.inf, sigma * wronskian / jnp.where(pure_noise, 1.0, alpha))


def noise_level(t: PerExample, *, path: Path) -> PerExample:
    """sigma(t), SiT's best choice on the straight path."""
    return path.sigma(t)


def linear(t: PerExample) -> PerExample:
    """Time itself, whatever the path."""
    return t


def decreasing(t: PerExample) -> PerExample:
    """(1 - cos(pi t))^2 / 4 on [0, 1]: 1 at noise, 0 at data."""
    return jnp.square(1 - jnp.cos(math.pi * t)) / 4


def increasing_decreasing(t: PerExample) -> PerExample:
    """sin^2(pi t) on [0, 1]: 0 at both ends."""
    return jnp.square(jnp.sin(math.pi * t))


def constant(t: PerExample, *, value: float = 1.0) -> PerExample:
    """The same everywhere; 0 makes an ODE of the SDE."""
    return jnp.full_like(t, value)
