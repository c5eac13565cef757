"""Trajectory consistency distillation on scikit-learn's digits (Zheng et al. 2024): jumps to any timestep below.

    python main.py --config configs/digits_tcd.py --workdir runs/digits_tcd --config.teacher_run=runs/digits_teacher

One DDIM step of the teacher out of 50 on Stable Diffusion's schedule; both jumps end at the same random timestep and
are compared there. Sampling jumps below the next timestep, by a share eta of it, and noises up to it.

The network is told s, without which one prediction must do for all ends: --config.second_time=False is that, and with
--config.second_order=True a jump of second order, which asks it again half way.

Differs from the paper: a whole network instead of LoRA, guided by one scale, by default none.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, teachers, trajectories
from losses import Path, conversions, l2, pairs, paths, steps, trajectory_consistency, triples
from losses.types import FlowMap, Loss
from models import DiT
from samplers import grids
from samplers.strategic import shortened_index
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The teacher's network, which is told s too, and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "second_time": True,  # whether the network is told s: the paper's TCF(S+)
            "second_order": False,  # if it is not: TCF(2), two calls a jump, instead of TCF(1)
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
    model = digits.network(config, source).clone(second_time=config.second_time)
    flow_map = flow_map_of(model, config, path)
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
            calls=2 if config.second_order else 1,
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


def flow_map_of(model: DiT, config: ConfigDict, path: Path) -> trajectories.FlowMapOf:
    """The paper's parameterisation by the values of the config.

    Raises:
        ValueError: for a network that is told s and asked half way too.
    """
    if config.second_time:
        if config.second_order:
            raise ValueError("second_order is of a network that is not told s: give --config.second_time=False")
        return trajectories.flow_map(digits_students.on_path_with_end(model, config, path), path)
    jump = conversions.denoiser_to_second_order_flow_map if config.second_order else conversions.denoiser_to_flow_map
    D_of = digits_students.on_path(model, config, path)

    def of(params: Params, labels: jax.Array | None) -> FlowMap:
        return jump(path, D_of(params, labels))

    return of
