"""Losses of consistency and flow models, and the paths, time laws and distances they are made of; needs jax alone."""

from . import (
    adversarial,
    conversions,
    curricula,
    flow_map_matching,
    pairs,
    paths,
    reference_sets,
    steps,
    tangents,
    times,
    transitions,
    triples,
    variational,
)
from .adjoint_matching import adjoint_matching, early_and_last
from .adjoints import full_adjoint, lean_adjoint, rollout
from .align_your_flow import align_eulerian, align_lagrangian
from .consistency import consistency
from .consistency_flow_matching import consistency_flow_matching
from .continuous_consistency import continuous_consistency
from .couplings import independent, on_host, optimal_transport
from .denoising import denoising
from .direct_backpropagation import direct_backpropagation
from .distances import (
    cauchy,
    elementwise_pseudo_huber,
    l1,
    l2,
    log_cosh,
    lpips,
    pseudo_huber,
    scaled_pseudo_huber,
    summed_pseudo_huber,
)
from .improved_mean_flow import improved_mean_flow, power_law_guidance
from .inductive_moment_matching import inductive_moment_matching
from .latent_consistency_training import latent_consistency_training
from .mean_flow import guided_velocity, mean_flow
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
from .reflow import reflow
from .segment_consistency import segment_consistency
from .shortcut import shortcut
from .trajectory import Jumps, jumps, trajectory_consistency
from .weights import (
    adaptive,
    edm_weight,
    imm_weight,
    inverse_power,
    inverse_time,
    likelihood_weight,
    one,
    snr_weight,
    v_weight,
    zero,
)

__all__ = [
    "Jumps",
    "Path",
    "adaptive",
    "adjoint_matching",
    "adversarial",
    "align_eulerian",
    "align_lagrangian",
    "cauchy",
    "consistency",
    "consistency_flow_matching",
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
    "flow_map_matching",
    "full_adjoint",
    "guided_velocity",
    "imm_weight",
    "improved_mean_flow",
    "independent",
    "inductive_moment_matching",
    "interpolate",
    "inverse_power",
    "inverse_time",
    "jumps",
    "l1",
    "l2",
    "latent_consistency_training",
    "lean_adjoint",
    "likelihood_weight",
    "linear",
    "linear_beta",
    "linear_to",
    "log_cosh",
    "lpips",
    "mean_flow",
    "on_host",
    "one",
    "optimal_transport",
    "pairs",
    "paths",
    "power_law_guidance",
    "pseudo_huber",
    "rectified_flow",
    "reference_sets",
    "reflow",
    "rollout",
    "scaled",
    "scaled_linear_beta",
    "scaled_pseudo_huber",
    "segment_consistency",
    "shortcut",
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
