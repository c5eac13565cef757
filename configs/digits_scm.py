"""Simplified continuous-time consistency models on scikit-learn's digits (Lu & Song 2024): sCT, and sCD.

    python main.py --config configs/digits_scm.py --workdir runs/digits_scm --config.teacher_run=runs/digits_teacher

Both start from the teacher's weights, as in the paper. With --config.distill=True the ODE is the teacher's too (sCD),
otherwise that of the data (sCT). The weight of each noise level is learned.
"""

import math
from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, guiding
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The teacher's network and the budget of digits.py."""
    config = digits_students.get_config()
    config.update(
        {
            "distill": False,
            "guidance": 1.0,
            "mean": -1.5,
            "std": 1.4,
            "tangent_c": 0.1,
            "warmup_share": 0.1,  # of the run, until the tangent is whole
            "learning_rate": 2e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any images, with the rest of the experiment from `fields`."""
    path = scaled(trig, config.sigma_data)
    model = digits.network(config, source)
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    f = digits_students.on_path(model, config, path)

    init = glue.weighted_initialiser(model, source)

    def initial() -> Params:
        return {**init(jax.random.key(config.seed)), "network": teacher.params()}

    def velocity(frozen: Params, labels: jax.Array | None):
        denoiser = guiding.classifier_free(
            lambda labels: teacher.diffusion.on_path(frozen, labels, path),
            labels,
            num_classes=source.num_classes,
            scale=config.guidance,
        )
        return conversions.denoiser_to_velocity(path, denoiser)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch.get("label")
        warmup_steps = max(int(config.steps * config.warmup_share), 1)
        return continuous_consistency(
            glue.bind(model, params["network"], labels),
            batch["image"],
            key,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=velocity(context.frozen, labels) if config.distill else None,
            warmup=curricula.tangent_warmup(context.step, steps=warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    def sampled(params: Params, labels: jax.Array | None):
        return f(params["network"], labels)

    angles = tuple(tuple(math.atan(sigma / config.sigma_data) for sigma in grid) for grid in config.grids)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params if config.distill else lambda: None,
        objective=objective,
        **fields(config, source, glue.consistency_samplers(sampled, source.shape, angles, path=path)),
    )
