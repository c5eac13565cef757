"""Losses of consistency and flow models, and the paths, time laws and distances they are made of; needs jax alone."""

from . import conversions, curricula, pairs, paths, times
from .consistency import consistency
from .couplings import independent
from .denoising import denoising
from .distances import cauchy, l1, l2, log_cosh, pseudo_huber
from .paths import Path, cosine, edm, interpolate, linear, linear_beta, scaled, trig, velocity
from .rectified_flow import rectified_flow
from .weights import edm_weight, one, snr_weight

__all__ = [
    "Path",
    "cauchy",
    "consistency",
    "conversions",
    "cosine",
    "curricula",
    "denoising",
    "edm",
    "edm_weight",
    "independent",
    "interpolate",
    "l1",
    "l2",
    "linear",
    "linear_beta",
    "log_cosh",
    "one",
    "pairs",
    "paths",
    "pseudo_huber",
    "rectified_flow",
    "scaled",
    "snr_weight",
    "times",
    "trig",
    "velocity",
]
