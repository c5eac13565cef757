"""Samplers of consistency and flow models, all (net, x, times, ...) -> x, and their time grids; needs jax alone."""

from . import diffusions, editing, grids, noise
from .addim import addim, addim_step
from .consistency import multistep_consistency
from .ddim import ddim
from .edge_skipping import edge_skipping
from .editing import edit
from .edm_stochastic import Churn, edm_stochastic
from .euler import euler
from .euler_maruyama import euler_maruyama
from .flow_map import flow_map
from .heun import heun
from .inversion import invert
from .likelihood import bits_per_dimension, log_likelihood
from .noise import normal, sample_keys
from .rectified import rectified
from .straightness import straightness
from .strategic import gamma_stop, shortened, shortened_index, strategic

__all__ = [
    "Churn",
    "addim",
    "addim_step",
    "bits_per_dimension",
    "ddim",
    "diffusions",
    "edge_skipping",
    "edit",
    "editing",
    "edm_stochastic",
    "euler",
    "euler_maruyama",
    "flow_map",
    "gamma_stop",
    "grids",
    "heun",
    "invert",
    "log_likelihood",
    "multistep_consistency",
    "noise",
    "normal",
    "rectified",
    "sample_keys",
    "shortened",
    "shortened_index",
    "straightness",
    "strategic",
]
