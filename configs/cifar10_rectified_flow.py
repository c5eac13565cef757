r"""Rectified flow on CIFAR-10 (Liu et al. 2022), first round, DDPM++.

    python main.py --config configs/cifar10_rectified_flow.py --workdir runs/cifar10_rectified_flow \
        --config.data_dir=DIR

Official code: FID-50k 2.58 with an adaptive solver (127 NFE), 378 with one Euler step before reflow. Hardware: not
said. Ours: not run. Differs: network time 999 t, where theirs is 999 (1 - t). The adaptive solver is theirs, RK45 with
a tolerance of 1e-5, and needs diffrax; without it --config.tolerance=0.0.
"""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import adaptive_steps, cifar10, glue, teachers, trained_models
from losses import linear, rectified_flow
from losses.types import Loss, Net
from models import ddpmpp, preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params, averages, schedules


def get_config() -> ConfigDict:
    """The official code's values."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",  # a model to start from, which the paper does not do
            "sigma_data": 0.5,  # of such a model
            "batch_size": 128,
            "steps": 1_300_000,
            "multipliers": (1, 2, 2, 2),
            "dropout": 0.15,
            "time_scale": 999.0,
            "learning_rate": 2e-4,
            "warmup_steps": 5_000,
            "clip": 1.0,
            "average_decay": 0.999999,
            "euler_steps": (1, 2, 4, 128),
            "tolerance": 1e-5,  # of adaptive steps; 0 is no such sampler
        }
    )
    return config


def velocity_of(config: ConfigDict, teacher: teachers.Teacher) -> Callable[[Net], Net]:
    """What the network outputs -> v(x_t, t): itself, or what that of the model says from which it starts."""
    return teachers.velocity_of(
        teacher, partial(preconditioning.velocity, time_scale=config.time_scale), config.sigma_data
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images)
    model = teachers.built_as(teacher, cifar10.unet(ddpmpp, config))
    of = velocity_of(config, teacher)

    def velocity(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return of(glue.bind(model, params, labels, dropout))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        net = velocity(params, batch.get("label"), key_dropout)
        losses, metrics = rectified_flow(net, batch["image"], key_loss)
        # The mean over elements, as in the official code: gradients are clipped by their norm.
        return losses / int(np.prod(images.shape)), metrics

    rate = schedules.warmup_constant(config.learning_rate, steps=config.warmup_steps)
    samplers = tuple(
        glue.ode_sampler(f"euler {n}", euler, n, velocity, images.shape, grids.linear(n), path=linear)
        for n in config.euler_steps
    )
    adaptive = adaptive_steps.rk45(config.tolerance, velocity, images.shape)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        optimizer=optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate)),
        averages={"ema": partial(averages.ramped, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **cifar10.fields(config, images, (*samplers, *adaptive), flip=True),
    )


def flow(config: ConfigDict) -> trained_models.Flow:
    """What this run is to those that go on from it."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images)
    model, of = teachers.built_as(teacher, cifar10.unet(ddpmpp, config)), velocity_of(config, teacher)
    return trained_models.Flow(
        velocity=lambda params, labels: of(glue.bind(model, params, labels)),
        velocity_of=of,
        shape=images.shape,
        num_classes=cifar10.classes(config),
        average="ema",
        images=lambda: images,
        built=trained_models.built_of(model),
    )
