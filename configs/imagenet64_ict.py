"""Improved consistency training on ImageNet-64 (Song & Dhariwal 2023): lognormal bins, pseudo-Huber, no target average.

    python main.py --config configs/imagenet64_ict.py --workdir runs/imagenet64_ict --config.data=FOLDER

Paper: FID-50k 4.02 in one step and 3.20 in two, class-conditional, 800k steps of batch 4,096; iCT-deep, which is
--config.blocks=6, 3.25 and 2.77. Hardware: not said. Ours: not run. The paper released no code. Its network is ADM with
the embedding added, where ADM's scale and shift diverged. bfloat16 where it has float16.
"""

from functools import partial

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import glue, imagenet, teachers
from losses import consistency, curricula, edm, pairs, pseudo_huber
from losses.types import Loss, Net
from models import preconditioning
from models.adm import adm
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values; batch, dropout, learning rate, average and mirroring are unverified."""
    config = imagenet.common()
    config.update(
        {
            "teacher_run": "",  # a model to start from, which the paper does not do
            "batch_size": 4096,
            "steps": 800_000,
            "dropout": 0.2,
            "dropout_resolutions": (16, 8),
            "sigma_min": 0.002,
            "s0": 10,
            "s1": 1280,
            "mean": -1.1,
            "std": 2.0,
            "huber_c_per_root_d": 0.00054,
            "learning_rate": 1e-4,
            "average_decay": 0.99997,
            "grids": ((80.0,), (80.0, 1.526)),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source, starts=True)
    model = teachers.built_as(
        teacher,
        imagenet.network(adm, config, adaptive_scale=False, dropout_resolutions=tuple(config.dropout_resolutions)),
    )
    F = teachers.network_of(teacher, model, config.sigma_data)
    distance = partial(pseudo_huber, c=config.huber_c_per_root_d * np.prod(source.shape) ** 0.5)

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

    samplers = glue.consistency_samplers(f, source.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        optimizer=optax.radam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **imagenet.fields(config, source, samplers, average="ema", flip=True),
    )
