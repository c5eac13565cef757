"""Converted flows (SiT, REPA) as runs: sampled, judged, and taken as teachers. Their samples are latents.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, pretrained, trained_models
from losses import linear
from losses.types import Net
from models import preconditioning
from models.pretrained import calls
from models.pretrained.dit import plain_velocity
from samplers import grids, heun
from train import Params


def build(config: ConfigDict) -> pretrained.Published:
    """The network with Heun's sampler at config.steps."""
    n, calls_each = config.steps, pretrained.calls_of(config)
    weaker = pretrained.weaker(config, velocity)

    def guided(params: Params, labels: jax.Array | None) -> Net:
        channels = 3 if config.settings.call.reversed else None  # SiT's own code guides three of four, REPA's all
        net_of = partial(velocity, config, params)
        return pretrained.guided(net_of, labels, config, channels=channels, weaker=weaker)

    sampler = glue.ode_sampler(
        f"heun {n}", heun, calls_each * (2 * n - 1), guided, config.settings.shape, grids.linear(n), path=linear
    )
    return pretrained.published(config, (sampler,))


def velocity(config: ConfigDict, params: Params, labels: jax.Array | None) -> Net:
    """v(x, t) of the parameters, t = 1 noise."""
    return calls.velocity(config.settings.call.to_dict(), glue.bind(pretrained.network(config), params, labels))


def flow(config: ConfigDict) -> trained_models.Flow:
    """What this network is to those that go on from it: one whose output is v(x, t) itself, with t = 1 at noise."""
    settings = config.settings
    model = pretrained.network(config).clone(out_channels=0)

    def v(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    return trained_models.Flow(
        v,
        preconditioning.velocity,
        settings.shape,
        settings.num_classes,
        "params",
        network=partial(plain_velocity, settings.to_dict()),
        values={**settings.network.to_dict(), "time_scale": 1.0, "double_norm": False},
        guidable=settings.num_classes > 0,
        built=trained_models.built_of(model),
    )
