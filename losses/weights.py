"""Weights of a loss over noise levels: `weight(t[B]) -> [B]`; bind their numbers with partial."""

import jax
import jax.numpy as jnp

from .paths import Path, coefficients
from .types import PerExample


def edm_weight(t: PerExample, *, sigma_data: float = 0.5) -> PerExample:
    """(t^2 + sigma_data^2) / (t sigma_data)^2, which is 1/c_out^2 (Karras et al. 2022, table 1).

    It makes the loss an unweighted one on the raw network; its minimum on N(0, sigma_data^2) data is 1 per element.
    """
    return (t**2 + sigma_data**2) / (t * sigma_data) ** 2


def snr_weight(t: PerExample, *, path: Path) -> PerExample:
    """Signal-to-noise ratio alpha^2/sigma^2: a data loss with it is a plain noise loss (Ho et al. 2020, eq. 14)."""
    return (path.alpha(t) / path.sigma(t)) ** 2


def v_weight(t: PerExample, *, path: Path) -> PerExample:
    """alpha^2/sigma^2 + 1: on a variance preserving path a data loss with it is a loss on v (Salimans & Ho 2022)."""
    return snr_weight(t, path=path) + 1


def imm_weight(t: PerExample, *, path: Path, b: float = 5.0, a: float = 1.0) -> PerExample:
    """sigmoid(b - l) (-l') alpha^a / (2 (alpha^2 + sigma^2)) with l = ln(alpha^2 / sigma^2) (Zhou et al. 2025).

    For 0 < t < 1 on a path of unit noise; b is 4 or 5 and a is 1 or 2 in the paper.
    """

    def log_snr(t: PerExample) -> PerExample:
        return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))

    log_ratio, rate = jax.jvp(log_snr, (t,), (jnp.ones_like(t),))
    alpha, sigma = path.alpha(t), path.sigma(t)
    return jax.nn.sigmoid(b - log_ratio) * -rate * alpha**a / (2 * (alpha**2 + sigma**2))


def likelihood_weight(t: PerExample, *, path: Path) -> PerExample:
    """alpha / (sigma |W|), W = sigma alpha' - alpha sigma': a velocity loss with it bounds the likelihood.

    It is (g^2 / 2) |score error|^2 with the noise g of the diffusion that the path belongs to (Song et al. 2021, eq.
    7 of their maximum likelihood training). The error of a noise prediction then has the weight |W| / (alpha sigma),
    which SiT calls likelihood; without a weight it has (W / alpha)^2, which SiT calls velocity. Infinite where
    sigma = 0.
    """
    c = coefficients(path, t, t)
    return c.alpha / (c.sigma * jnp.abs(c.sigma * c.alpha_rate - c.alpha * c.sigma_rate))


def adaptive(loss: PerExample, log_weight: PerExample, *, elements: int) -> PerExample:
    """exp(w)/d loss - w for a learned log-weight w of each noise level (Lu & Song 2024, alg. 1).

    At its optimum, w = -ln(loss/d), every level has the same weighted loss, 1. EDM2's uncertainty u is -w, and its
    loss, summed over elements, d times this one (Karras et al. 2024, eq. 15).

    Args:
        loss: Sum over the elements of each example.
        log_weight: w at the noise level of each example.
        elements: d, elements of one example.
    """
    return jnp.exp(log_weight) / elements * loss - log_weight


def inverse_power(error: PerExample, *, p: float, c: float) -> PerExample:
    """error / stop_gradient((error + c)^p): MeanFlow's adaptive weight of a squared error (Geng et al. 2025).

    p = 0 is the error itself, p = 1 about 1 whatever the error is: it is the gradient that tells.

    Raises:
        ValueError: unless c > 0.
    """
    if not c > 0:
        raise ValueError(f"inverse_power needs c > 0, got {c}")
    return error / jax.lax.stop_gradient((error + c) ** p)


def zero(t: PerExample) -> PerExample:
    """Log-weight 0: no adaptive weighting."""
    return jnp.zeros_like(t)


def inverse_time(t: PerExample, *, low: float = 1e-5) -> PerExample:
    """1/t, and 1/low where t is less than that (Lee et al. 2024, configuration F)."""
    return 1 / jnp.maximum(t, low)


def one(t: PerExample) -> PerExample:
    """No weighting."""
    return jnp.ones_like(t)
