"""Losses of consistency and flow models, and the paths, time laws and distances they are made of; needs jax alone."""

from . import (
    adversarial,
    conversions,
    curricula,
    pairs,
    paths,
    steps,
    tangents,
    times,
    transitions,
    triples,
    variational,
)
from .adjoint_matching import adjoint_matching, early_and_last
from .adjoints import full_adjoint, lean_adjoint, rollout
from .consistency import consistency
from .continuous_consistency import continuous_consistency
from .couplings import independent, on_host, optimal_transport
from .denoising import denoising
from .direct_backpropagation import direct_backpropagation
from .distances import cauchy, elementwise_pseudo_huber, l1, l2, log_cosh, lpips, pseudo_huber, summed_pseudo_huber
from .latent_consistency_training import latent_consistency_training
from .paths import (
    Path,
    cosine,
    edm,
    interpolate,
    linear,
    linear_beta,
    linear_to,
    scaled,
    scaled_linear_beta,
    trig,
    velocity,
)
from .rectified_flow import rectified_flow
from .segment_consistency import segment_consistency
from .trajectory import Jumps, jumps, trajectory_consistency
from .weights import adaptive, edm_weight, one, snr_weight, v_weight, zero

__all__ = [
    "Jumps",
    "Path",
    "adaptive",
    "adjoint_matching",
    "adversarial",
    "cauchy",
    "consistency",
    "continuous_consistency",
    "conversions",
    "cosine",
    "curricula",
    "denoising",
    "direct_backpropagation",
    "early_and_last",
    "edm",
    "edm_weight",
    "elementwise_pseudo_huber",
    "full_adjoint",
    "independent",
    "interpolate",
    "jumps",
    "l1",
    "l2",
    "latent_consistency_training",
    "lean_adjoint",
    "linear",
    "linear_beta",
    "linear_to",
    "log_cosh",
    "lpips",
    "on_host",
    "one",
    "optimal_transport",
    "pairs",
    "paths",
    "pseudo_huber",
    "rectified_flow",
    "rollout",
    "scaled",
    "scaled_linear_beta",
    "segment_consistency",
    "snr_weight",
    "steps",
    "summed_pseudo_huber",
    "tangents",
    "times",
    "trajectory_consistency",
    "transitions",
    "trig",
    "triples",
    "v_weight",
    "variational",
    "velocity",
    "zero",
]
