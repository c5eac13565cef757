"""Improved consistency training on CIFAR-10 (Song & Dhariwal 2023): lognormal bins, pseudo-Huber, no target average.

    python main.py --config configs/cifar10_ict.py --workdir runs/cifar10_ict --config.data_dir=DIR

Paper: FID-50k 2.83 in one step and 2.46 in two, unconditional, 400k steps of batch 1024; iCT-deep, which is
--config.blocks=8, 2.51 and 2.24. Hardware: not said. Ours: not run. The paper released no code; independent runs at
small batches report FID 10 and more, so the batch matters. The pseudo-Huber norm is that of the whole image; ports that
take it per pixel train another loss.
"""

from functools import partial

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import cifar10, glue, teachers
from losses import consistency, curricula, edm, pairs, pseudo_huber
from losses.types import Loss, Net
from models import ncsnpp, preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values, some of them unverified: batch, dropout, learning rate, average."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",  # a model to start from, which the paper does not do
            "batch_size": 1024,
            "steps": 400_000,
            "dropout": 0.3,
            "fourier_scale": 0.02,
            "sigma_data": 0.5,
            "sigma_min": 0.002,
            "s0": 10,
            "s1": 1280,
            "mean": -1.1,
            "std": 2.0,
            "huber_c_per_root_d": 0.00054,
            "learning_rate": 1e-4,
            "average_decay": 0.99993,
            "grids": ((80.0,), (80.0, 0.821)),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images, starts=True)
    model = teachers.built_as(teacher, cifar10.unet(ncsnpp, config, fourier_scale=config.fourier_scale))
    F = teachers.network_of(teacher, model, config.sigma_data)
    distance = partial(pseudo_huber, c=config.huber_c_per_root_d * np.prod(images.shape) ** 0.5)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data, config.sigma_min)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        points = curricula.ict_points(context.step, steps=config.steps, s0=config.s0, s1=config.s1)
        return consistency(
            f(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            pairs=partial(pairs.ict, points=points, mean=config.mean, std=config.std, sigma_min=config.sigma_min),
            distance=distance,
        )

    samplers = glue.consistency_samplers(f, images.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        optimizer=optax.radam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **cifar10.fields(config, images, samplers, flip=True),
    )
