"""Converted diffusion models (EDM, EDM2, guided diffusion, DiT) as runs: sampled, judged, and taken as teachers.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

import math
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import glue, pretrained, teachers
from losses import Path, conversions, edm
from losses.types import Net
from models.pretrained import calls
from samplers import grids, heun
from train import Params

TEACHERS_OWN = ("map_augment",)  # layers that no student has; without augmentation labels they add nothing


def build(config: ConfigDict) -> pretrained.Published:
    """The network with Heun's sampler of EDM, at config.steps."""
    settings, calls_each = config.settings, 1 if config.guidance == 1 else 2

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        channels = 3 if config.family == "dit" else None  # what DiT's own code guides
        net = pretrained.guided(partial(denoiser, config, params), labels, config, channels=channels)
        return conversions.denoiser_to_velocity(edm, net)

    n, times = config.steps, times_of(config)
    sampler = glue.ode_sampler(
        f"heun {n}", heun, calls_each * (2 * len(times) - 1), velocity, settings.shape, times, path=edm
    )
    return pretrained.published(config, (sampler,))


def denoiser(config: ConfigDict, params: Params, labels: jax.Array | None) -> Net:
    """D(x, sigma) of the parameters, as they lie in the folder."""
    F = glue.bind(pretrained.network(config), pretrained.params_of(params), labels)
    return calls.denoiser(config.settings.call.to_dict(), F)


def times_of(config: ConfigDict) -> np.ndarray:
    """EDM's noise levels, or, of a network that knows some alone, those of them that are closest."""
    call = config.settings.call
    times = grids.karras(config.steps, sigma_min=call.sigma_min, sigma_max=call.sigma_max)
    if call.kind != "discrete":
        return times
    levels = np.asarray(call.levels)
    nearest = np.abs(times[:, None] - levels).argmin(axis=1)
    return levels[np.unique(nearest)][::-1]


def diffusion(config: ConfigDict) -> teachers.Diffusion:
    """What this network is to students."""
    settings = config.settings
    model = pretrained.network(config)
    if "augment_features" in settings.network:
        model = model.clone(augment_features=0)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        F = glue.bind(model, params, labels)
        return conversions.edm_on_path(calls.denoiser(settings.call.to_dict(), F), path)

    def own(params: Params) -> Params:
        network = pretrained.params_of(params)
        return {name: layer for name, layer in network.items() if name not in TEACHERS_OWN}

    # Random frequencies, or sinusoids of another multiple of the noise level: in neither do our own networks have them.
    own_embedding = config.family == "openai" or settings.network.get("frequencies") is not None
    return teachers.Diffusion(
        on_path,
        settings.shape,
        settings.num_classes,
        # What assumes none is no start for a student that does.
        settings.call.get("sigma_data", math.nan),
        "params",
        guidable=config.family == "dit",
        network=own,
        noise_embedding=model.noise_embedding if own_embedding else None,
    )
