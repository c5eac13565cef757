r"""Consistency training on CIFAR-10 (Song et al. 2023, alg. 3): growing grid, averaged target, LPIPS.

    python main.py --config configs/cifar10_ct.py --workdir runs/cifar10_ct --config.data_dir=DIR \
        --config.lpips=FILE.npz

Paper: FID-50k 8.70 in one step and 5.83 in two (unverified), class-unconditional, 800k steps of batch 512, on A100s
whose number it does not say. Ours: not run; users of the official code report 12.84. Without an LPIPS file the distance
is squared l2, which the paper found worse. Follows the official code in dividing by N(k) - 1 in the target decay, where
the paper's formula has N(k).
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, distances, glue, teachers
from losses import consistency, curricula, edm, pairs
from losses.types import Loss, Net
from models import ncsnpp, preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",  # a model to start from, which the paper does not do
            "lpips": "",
            "batch_size": 512,
            "steps": 800_000,
            "dropout": 0.0,
            "sigma_data": 0.5,
            "sigma_min": 0.002,
            "s0": 2,
            "s1": 150,
            "mu0": 0.9,
            "learning_rate": 4e-4,
            "average_decay": 0.9999,
            "grids": ((80.0,), (80.0, 0.821)),  # the second noise level is unverified
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images, starts=True)
    model = teachers.built_as(teacher, cifar10.unet(ncsnpp, config))
    F = teachers.network_of(teacher, model, config.sigma_data)
    metric = distances.lpips_or_l2(config.lpips)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data, config.sigma_min)

    def points(step: jax.Array) -> jax.Array:
        return curricula.ct_points(step, steps=config.steps, s0=config.s0, s1=config.s1)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        return consistency(
            f(params, labels, key_dropout),
            batch["image"],
            key_loss,
            pairs=partial(pairs.ct, points=points(context.step), sigma_min=config.sigma_min),
            target=f(context.averages["target"], labels, key_dropout),
            distance=metric.distance(context.frozen),
        )

    samplers = glue.consistency_samplers(f, images.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        frozen=metric.params,
        optimizer=optax.radam(config.learning_rate),
        averages={
            "target": lambda step: curricula.ct_target_decay(points(step), s0=config.s0, mu0=config.mu0),
            "ema": partial(averages.constant, decay=config.average_decay),
        },
        **teachers.start(config.teacher_run, teacher),
        **cifar10.fields(config, images, samplers, flip=True),
    )
