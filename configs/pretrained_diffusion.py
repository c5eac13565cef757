"""Converted diffusion models (EDM, EDM2, guided diffusion, DiT) as runs: sampled, judged, and taken as teachers.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import forms, glue, pretrained, trained_models
from losses import Path, conversions, edm
from losses.types import Net
from models.pretrained import calls
from samplers import grids, heun
from train import Params

TEACHERS_OWN = ("map_augment",)  # layers that no student has; without augmentation labels they add nothing
LAST_LAYER = re.compile(r"out_conv|dec_\d+x\d+_aux_conv|final")


def build(config: ConfigDict) -> pretrained.Published:
    """The network with Heun's sampler of EDM, at config.steps."""
    settings, calls_each = config.settings, pretrained.calls_of(config)
    weaker = pretrained.weaker(config, denoiser)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        channels = 3 if config.family == "dit" else None  # what DiT's own code guides
        net = pretrained.guided(partial(denoiser, config, params), labels, config, channels=channels, weaker=weaker)
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


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this network is to students."""
    settings, call = config.settings, config.settings.call.to_dict()
    model = students_network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        return conversions.edm_on_path(calls.denoiser(call, glue.bind(model, params, labels)), path)

    return trained_models.Diffusion(
        on_path,
        form_of(call),
        settings.shape,
        settings.num_classes,
        call.get("sigma_data"),
        "params",
        guidable=config.family == "dit",
        network=partial(students_params, config),
        built=trained_models.built_of(model),
    )


def form_of(call: Mapping[str, Any]) -> forms.Form:
    """What such a network outputs."""
    if call["kind"] == "edm":
        return forms.EDM
    return forms.of_denoisers(partial(calls.denoiser, call), partial(calls.smooth_denoiser, call))


def students_network(config: ConfigDict) -> Any:
    """The network without what no student has: layers for augmentation labels, and the outputs of a variance."""
    model = pretrained.network(config)
    without = {"out_channels": 0, "augment_features": 0}
    return model.clone(**{name: value for name, value in without.items() if name in config.settings.network})


def students_params(config: ConfigDict, params: Params) -> Params:
    """Its parameters, of those that lie in the folder."""
    network = {name: layer for name, layer in pretrained.params_of(params).items() if name not in TEACHERS_OWN}
    settings = config.settings
    channels = settings.shape[-1]
    outputs = settings.network.get("out_channels", channels)
    if outputs == channels:
        return network
    (last,) = (name for name in network if LAST_LAYER.fullmatch(name))
    pixels = settings.network.get("patch", 1) ** 2

    def first(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(*leaf.shape[:-1], pixels, outputs)[..., :channels].reshape(*leaf.shape[:-1], -1)

    return {**network, last: jax.tree.map(first, network[last])}
