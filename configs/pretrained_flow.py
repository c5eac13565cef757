"""Converted flows (SiT, REPA) as runs: sampled, judged, and taken as teachers. Their samples are latents.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, pretrained, teachers
from losses import linear
from losses.types import Net
from models.pretrained import calls
from samplers import grids, heun
from train import Params


def build(config: ConfigDict) -> pretrained.Published:
    """The network with Heun's sampler at config.steps."""
    n, calls_each = config.steps, 1 if config.guidance == 1 else 2

    def guided(params: Params, labels: jax.Array | None) -> Net:
        channels = 3 if config.settings.call.reversed else None  # SiT's own code guides three of four, REPA's all
        return pretrained.guided(partial(velocity, config, params), labels, config, channels=channels)

    sampler = glue.ode_sampler(
        f"heun {n}", heun, calls_each * (2 * n - 1), guided, config.settings.shape, grids.linear(n), path=linear
    )
    return pretrained.published(config, (sampler,))


def velocity(config: ConfigDict, params: Params, labels: jax.Array | None) -> Net:
    """v(x, t) of the parameters, t = 1 noise."""
    return calls.velocity(config.settings.call.to_dict(), glue.bind(pretrained.network(config), params, labels))


def flow(config: ConfigDict) -> teachers.Flow:
    """What this network is to those that go on from it."""
    return teachers.Flow(partial(velocity, config), config.settings.shape, config.settings.num_classes, "params")
