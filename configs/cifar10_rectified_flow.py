r"""Rectified flow on CIFAR-10 (Liu et al. 2022), first round, DDPM++.

    python main.py --config configs/cifar10_rectified_flow.py --workdir runs/cifar10_rectified_flow \
        --config.data_dir=DIR

Official code: FID-50k 2.58 with an adaptive solver (127 NFE), 378 with one Euler step before reflow. Hardware: not
said. Ours: not run. Differs: network time 999 t, where theirs is 999 (1 - t). The adaptive solver is theirs, RK45 with
a tolerance of 1e-5, and needs diffrax; without it --config.tolerance=0.0.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import adaptive_steps, cifar10, glue, trained_models
from losses import linear, rectified_flow
from losses.types import Loss, Net
from models import ddpmpp, preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The official code's values."""
    config = cifar10.common()
    config.update(
        {
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


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    model = cifar10.unet(ddpmpp, config)

    def velocity(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels, dropout), config.time_scale)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        net = velocity(params, batch.get("label"), key_dropout)
        return rectified_flow(net, batch["image"], key_loss)

    rate = optax.warmup_constant_schedule(0.0, config.learning_rate, config.warmup_steps)
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
        **cifar10.fields(config, images, (*samplers, *adaptive), flip=True),
    )


def flow(config: ConfigDict) -> trained_models.Flow:
    """What this run is to those that go on from it."""
    images = cifar10.source(config)
    model = cifar10.unet(ddpmpp, config)
    return trained_models.Flow(
        velocity=lambda params, labels: preconditioning.velocity(glue.bind(model, params, labels), config.time_scale),
        velocity_of=partial(preconditioning.velocity, time_scale=config.time_scale),
        shape=images.shape,
        num_classes=cifar10.classes(config),
        average="ema",
        images=lambda: images,
        built=trained_models.built_of(model),
    )
