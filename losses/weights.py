"""Weights of a loss over noise levels: `weight(t[B]) -> [B]`; bind their numbers with partial."""

import jax.numpy as jnp

from .paths import Path
from .types import PerExample


def edm_weight(t: PerExample, *, sigma_data: float = 0.5) -> PerExample:
    """(t^2 + sigma_data^2) / (t sigma_data)^2, which is 1/c_out^2 (Karras et al. 2022, table 1).

    It makes the loss an unweighted one on the raw network; its minimum on N(0, sigma_data^2) data is 1 per element.
    """
    return (t**2 + sigma_data**2) / (t * sigma_data) ** 2


def snr_weight(t: PerExample, *, path: Path) -> PerExample:
    """Signal-to-noise ratio alpha^2/sigma^2: a data loss with it is a plain noise loss (Ho et al. 2020, eq. 14)."""
    return (path.alpha(t) / path.sigma(t)) ** 2


def one(t: PerExample) -> PerExample:
    """No weighting."""
    return jnp.ones_like(t)
