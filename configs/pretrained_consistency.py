"""Converted consistency models (those of OpenAI, ECT) as runs: sampled, judged, and gone on from.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import forms, glue, pretrained, pretrained_diffusion, trained_models
from losses import Path, conversions, edm
from losses.types import Net
from models.pretrained import calls
from train import Params

SECOND_SIGMA = 0.821  # iCT's and ECT's on CIFAR-10, which folders of earlier code do not say


def build(config: ConfigDict) -> pretrained.Published:
    """The network in one step and in two, of which the second starts at config.second_sigma."""
    settings = config.settings
    model = pretrained.network(config)

    def f(params: Params, labels: jax.Array | None) -> Net:
        return calls.consistency_function(settings.call.to_dict(), glue.bind(model, params, labels))

    grids = ((80.0,), (80.0, config.get("second_sigma", SECOND_SIGMA)))
    samplers = glue.consistency_samplers(f, settings.shape, grids, path=edm, sigma_min=settings.call.sigma_min)
    return pretrained.published(config, samplers)


def consistency_model(config: ConfigDict) -> trained_models.Diffusion:
    """What this network is to runs that start from it, its consistency function in the place of a denoiser."""
    settings = config.settings
    model = pretrained_diffusion.students_network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        F = glue.bind(model, params, labels)
        return conversions.edm_on_path(calls.consistency_function(settings.call.to_dict(), F), path)

    return trained_models.Diffusion(
        on_path,
        forms.EDM,
        settings.shape,
        settings.num_classes,
        settings.call.sigma_data,
        "params",
        network=partial(pretrained_diffusion.students_params, config),
        built=trained_models.built_of(model),
    )
