"""Samplers of consistency and flow models, all (net, x, times, ...) -> x, and their time grids; needs jax alone."""

from . import grids, noise
from .consistency import multistep_consistency
from .ddim import ddim
from .edm_stochastic import Churn, edm_stochastic
from .euler import euler
from .heun import heun
from .noise import normal, sample_keys

__all__ = [
    "Churn",
    "ddim",
    "edm_stochastic",
    "euler",
    "grids",
    "heun",
    "multistep_consistency",
    "noise",
    "normal",
    "sample_keys",
]
