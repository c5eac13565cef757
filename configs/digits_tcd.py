"""Trajectory consistency distillation on scikit-learn's digits (Zheng et al. 2024): jumps to any timestep below.

    python main.py --config configs/digits_tcd.py --workdir runs/digits_tcd --config.teacher_run=runs/digits_teacher

One DDIM step of the teacher out of 50 on Stable Diffusion's schedule; both jumps end at the same random timestep and
are compared there. Sampling jumps below the next timestep, by a share eta of it, and noises up to it.

Differs from the paper: a whole network instead of LoRA, guided by one scale, by default none.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, teachers, trajectories
from losses import l2, pairs, paths, steps, trajectory_consistency, triples
from losses.types import Loss
from samplers import grids
from samplers.strategic import shortened_index
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The teacher's network, which is told s too, and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "solver_steps": 50,
            "guidance": 1.0,
            "target_decay": 0.95,
            "learning_rate": 1e-3,
            "eta": 0.3,
            "step_counts": (1, 2, 4, 8),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any examples, with the rest of the experiment from `fields`."""
    path = paths.scaled_linear_beta()
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    model = digits.network(config, source).clone(second_time=True)
    flow_map = trajectories.flow_map(digits_students.on_path_with_end(model, config, path), path)
    init = glue.initialiser(model, source)

    def initial() -> Params:
        return teachers.extended_start(model, source, init(jax.random.key(config.seed)), teacher.params())

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        denoiser = teachers.guided(teacher, context.frozen, labels, path, scale=config.guidance)
        return trajectory_consistency(
            flow_map(params, labels),
            batch["image"],
            key,
            triples=partial(triples.tcd, grid=pairs.ddim_grid(config.solver_steps)),
            step=partial(steps.ddim, denoiser=denoiser),
            target=flow_map(context.averages["target"], labels),
            distance=l2,
            path=path,
        )

    samplers = tuple(
        trajectories.strategic_sampler(
            f"strategic {n}, eta {config.eta:g}",
            flow_map,
            source.shape,
            grids.latent_consistency(n, solver_steps=config.solver_steps),
            path=path,
            stop=shortened_index(config.eta),
        )
        for n in config.step_counts
    )
    rest = fields(config, source, samplers)
    rest["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params,
        objective=objective,
        **rest,
    )
