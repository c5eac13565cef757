r"""Consistency flow matching on scikit-learn's digits (Yang et al. 2024): a straight line in each of two segments.

    python main.py --config configs/digits_consistency_fm.py --workdir runs/digits_consistency_fm \
        --config.teacher_run=runs/digits_rectified_flow

Starts from the weights of a flow, in place of the paper's first stage, which is flow matching; without a flow, from
scratch with that stage for half of the run. With --config.distill=True the second point of each pair is on the flow's
own trajectory (the paper's distillation).

Differs from the paper: the share `boundary` of the time in which the network is compared with itself is 0.9 as it says,
not the 1 that its code has whatever it is told.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, flows, glue
from losses import consistency_flow_matching, linear, steps
from losses.types import Loss, Net
from models import preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The flow's network and the budget of digits_students.py, with the paper's constants."""
    config = digits_students.get_config()
    del config.grids, config.sigma_data
    config.update(
        {
            "distill": False,
            "segments": 2,
            "delta": 1e-3,
            "alpha": 1e-5,
            "boundary": 0.9,
            "first_stage": 0.5,  # share of a run from scratch in which the boundary is 0
            "target_decay": 0.95,
            "learning_rate": 1e-3,
            "euler_steps": (1, 2, 4, 8, 32),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    if config.distill and not config.teacher_run:
        raise ValueError("distill=True needs a trained flow: give its workdir with --config.teacher_run=DIR")
    source = data.digits()
    model = digits.network(config, source)
    start = flows.start(config, model, source)
    second_stage = 0 if config.teacher_run else int(config.steps * config.first_stage)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        flow = velocity(context.frozen, labels)
        return consistency_flow_matching(
            velocity(params, labels),
            batch["image"],
            key,
            boundary=jnp.where(context.step < second_stage, 0.0, config.boundary),
            segments=config.segments,
            delta=config.delta,
            alpha=config.alpha,
            target=velocity(context.averages["target"], labels),
            step=partial(steps.euler, velocity=flow) if config.distill else steps.same_noise,
        )

    samplers = tuple(
        glue.ode_sampler(f"euler {n}", euler, n, velocity, source.shape, grids.linear(n), path=linear)
        for n in config.euler_steps
    )
    rest = digits.fields(config, source, samplers)
    rest["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=start["initial"] if config.distill else lambda: None,
        **start,
        **rest,
    )
