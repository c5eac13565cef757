"""The ODE of a trained run, along which pairs are made and likelihoods are found.

Not a run. Flows have one, diffusion models, and trajectory models, which are diffusion models at s = t.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import data
import eval as evaluation
import train
from configs import ctm, glue, trained_models
from losses import Path as NoisePath
from losses import conversions, edm, linear
from losses.types import Net
from samplers import grids


class Ode(NamedTuple):
    """The ODE of a trained run, and how pairs are made along it.

    Attributes:
        velocity: (params, labels) -> its velocity on `path`.
        path: x_t = alpha x + sigma z.
        times: number of solver steps -> their descending times; noise is sigma(times[0]) z.
        solver_steps: how many there are by default.
        end: time at which real images are taken up, with as much noise as the path has there.
        shape, num_classes, average, network, images: as a `trained_models.Diffusion` says them.
    """

    velocity: glue.NetOf
    path: NoisePath
    times: Callable[[int], np.ndarray]
    solver_steps: int
    end: float
    shape: tuple[int, ...]
    num_classes: int
    average: str
    network: Callable[[train.Params], train.Params]
    images: Callable[[], data.Source] | None


def read(workdir: str | Path) -> Ode:
    """The ODE of a run with a `flow(config)`, a `diffusion(config)` or a `trajectory(config)`; no weights are read.

    That of a diffusion model starts at 80 z, which but for its scale is the straight path's state at t = 80 / 81 where
    nothing is left of the data: what it makes of 80 z is paired with z (Lee et al. 2024).

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the run is of something else.
    """
    config_file, config = evaluation.read_run(workdir)
    module = evaluation.load_module(config_file)
    if hasattr(module, "flow"):
        flow: trained_models.Flow = module.flow(config)
        whole = (flow.shape, flow.num_classes, flow.average, flow.network, flow.images)
        return Ode(flow.velocity, linear, grids.linear, 32, 1e-3, *whole)
    if hasattr(module, "diffusion"):
        diffusion: trained_models.Diffusion = module.diffusion(config)
        whole = (diffusion.shape, diffusion.num_classes, diffusion.average, diffusion.network, diffusion.images)
        return _of_denoiser(lambda params, labels: diffusion.on_path(params, labels, edm), *whole)
    if hasattr(module, "trajectory"):
        trained: ctm.Trained = module.trajectory(config)
        whole = (trained.shape, trained.num_classes, trained.average, trained.network, trained.images)
        return _of_denoiser(lambda params, labels: ctm.denoiser(trained.g(params, labels)), *whole)
    raise ValueError(f"the run in {workdir} is of {config_file.name}, which trains no flow and no diffusion model")


def _of_denoiser(D: glue.NetOf, *whole: Any) -> Ode:
    """That of a diffusion model with the denoiser D on the EDM path."""

    def velocity(params: train.Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(edm, D(params, labels))

    return Ode(velocity, edm, grids.karras, 18, 1e-3, *whole)
