"""Losses of consistency and flow models, and the paths, time laws and distances they are made of; needs jax alone."""

from . import conversions, curricula, pairs, paths, steps, tangents, times
from .consistency import consistency
from .continuous_consistency import continuous_consistency
from .couplings import independent
from .denoising import denoising
from .distances import cauchy, l1, l2, log_cosh, lpips, pseudo_huber
from .paths import Path, cosine, edm, interpolate, linear, linear_beta, scaled, trig, velocity
from .rectified_flow import rectified_flow
from .segment_consistency import segment_consistency
from .weights import adaptive, edm_weight, one, snr_weight, v_weight, zero

__all__ = [
    "Path",
    "adaptive",
    "cauchy",
    "consistency",
    "continuous_consistency",
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
    "lpips",
    "one",
    "pairs",
    "paths",
    "pseudo_huber",
    "rectified_flow",
    "scaled",
    "segment_consistency",
    "snr_weight",
    "steps",
    "tangents",
    "times",
    "trig",
    "v_weight",
    "velocity",
    "zero",
]
