r"""Continuous-time consistency distillation at any guidance scale, on scikit-learn's digits (Lu & Song 2024): sCD.

    python main.py --config configs/digits_teacher.py --workdir runs/digits_teacher
    python main.py --config configs/digits_scm_guided.py --workdir runs/digits_scm_guided \
        --config.teacher_run=runs/digits_teacher

As digits_scm.py with --config.distill=True, where the teacher is guided by a random scale w for each example, which the
network is given too: what the paper does on ImageNet-512. One network then samples at any scale, one call a step.
"""

import itertools
import math
from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_scm, digits_students, glue, teachers
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss, Net
from models import preconditioning
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of digits_scm.py."""
    config = digits_scm.get_config()
    del config.distill, config.guidance
    config.update({"guidance_range": (1.0, 2.0), "grids": ((80.0,), (80.0, 0.8)), "sampled_guidance": (1.0, 1.5, 2.0)})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    low, high = config.guidance_range
    teacher = digits_students.teacher(config, source, guidance=high)
    model = digits.network(config, source).clone(guided=True)
    path = scaled(trig, config.sigma_data)
    init = glue.weighted_initialiser(model, source)

    def initial() -> Params:
        start = init(jax.random.key(config.seed))
        return {**start, "network": teachers.extended_start(model, source, start["network"], teacher.params())}

    def velocity(frozen: Params, labels: jax.Array, w: jax.Array) -> Net:
        return conversions.denoiser_to_velocity(path, teachers.guided(teacher, frozen, labels, path, scale=w))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_w = jax.random.split(key)
        labels = batch["label"]
        w = jax.random.uniform(key_w, labels.shape, minval=low, maxval=high)
        warmup_steps = max(int(config.steps * config.warmup_share), 1)
        return continuous_consistency(
            glue.bind(model, params["network"], labels, w=w),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=velocity(context.frozen, labels, w),
            warmup=curricula.tangent_warmup(context.step, steps=warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    def f(w: float) -> glue.NetOf:
        return lambda params, labels: preconditioning.trigflow(
            glue.bind(model, params["network"], labels, w=w), config.sigma_data
        )

    angles = tuple(tuple(math.atan(sigma / config.sigma_data) for sigma in grid) for grid in config.grids)
    sampled_at = itertools.product(angles, config.sampled_guidance)
    samplers = glue.guided_consistency_samplers(f, source.shape, sampled_at, path=path)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params,
        objective=objective,
        **digits.fields(config, source, samplers),
    )
