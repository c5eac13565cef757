"""Rectified flow on scikit-learn's digits: straight paths, uniform times, Euler steps.

    python main.py --config configs/digits_rectified_flow.py --workdir runs/digits_rectified_flow

Liu et al. 2022, first round (independent coupling). One step of a flow before reflow is close to the class mean, which
the classifier recognises and the Fréchet distance does not forgive.
"""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, trained_models
from losses import independent, linear, rectified_flow
from losses.types import Coupling, Loss
from models import preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md, with the flow's objective."""
    config = digits_students.get_config()
    for name in ("sigma_data", "grids", "teacher_run"):
        del config[name]
    config.learning_rate = 2e-3
    config.euler_steps = (1, 2, 4, 8, 32)
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, lambda labels: independent)


def experiment(config: ConfigDict, coupling_of: Callable[[jax.Array], Coupling]) -> Experiment:
    """The same with the data of these labels paired otherwise."""
    source, velocity = data.digits(), flow(config).velocity

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        return rectified_flow(velocity(params, labels), batch["image"], key, coupling=coupling_of(labels))

    samplers = tuple(
        glue.ode_sampler(f"euler {n}", euler, n, velocity, source.shape, grids.linear(n), path=linear)
        for n in config.euler_steps
    )
    return Experiment(
        init=glue.initialiser(digits.network(config, source), source),
        objective=objective,
        **digits.fields(config, source, samplers),
    )


def flow(config: ConfigDict) -> trained_models.Flow:
    """What this run is to those that go on from it."""
    source = data.digits()
    model = digits.network(config, source)
    return trained_models.Flow(
        velocity=lambda params, labels: preconditioning.velocity(glue.bind(model, params, labels)),
        velocity_of=preconditioning.velocity,
        shape=source.shape,
        num_classes=source.num_classes,
        average=f"power_{config.sigma_rels[0]:.2f}",
        images=data.digits,
    )
