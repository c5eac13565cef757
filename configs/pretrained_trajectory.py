"""Converted consistency trajectory models (CTM) as runs: sampled, judged, and gone on from.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from configs import ctm, glue, pretrained, pretrained_diffusion, trained_models
from losses.types import FlowMap
from models.pretrained import calls
from train import Params


def build(config: ConfigDict) -> pretrained.Published:
    """The network in one jump and in two, without noise in between."""
    settings = config.settings
    model = pretrained.network(config)

    def jump(params: Params, labels: jax.Array | None) -> FlowMap:
        return ctm.flow_map(g_of(model, config, params, labels))

    samplers = tuple(ctm.sampler(jump, settings.shape, n, gamma=0.0, sigma_min=settings.call.sigma_min) for n in (1, 2))
    return pretrained.published(config, samplers)


def g_of(model: Any, config: ConfigDict, params: Params, labels: jax.Array | None) -> FlowMap:
    """g(x_t, t, s) of a network, the whole one or a student's."""

    def F(x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        return glue.bind(model, params, labels, s=s)(x, t)

    return calls.trajectory(config.settings.call.to_dict(), F)


def trajectory(config: ConfigDict) -> ctm.Trained:
    """What this network is to runs that go on from it."""
    settings = config.settings
    model = pretrained_diffusion.students_network(config)
    return ctm.Trained(
        tuple(settings.shape),
        settings.num_classes,
        settings.call.sigma_data,
        "params",
        partial(g_of, model, config),
        network=partial(pretrained_diffusion.students_params, config),
        built=trained_models.built_of(model),
    )
