r"""Consistency distillation on CIFAR-10 (Song et al. 2023, alg. 2): Heun steps of a diffusion model of ours, LPIPS.

    python main.py --config configs/cifar10_edm.py --workdir runs/cifar10_edm_ncsnpp --config.ncsnpp=True
    python main.py --config configs/cifar10_cd.py --workdir runs/cifar10_cd --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_edm_ncsnpp --config.lpips=FILE.npz

Paper: FID-50k 3.55 in one step and 2.93 in two, unconditional, 800k steps of batch 512, on A100s whose number it does
not say. Ours: not run. Without an LPIPS file the distance is squared l2, which the paper found worse.

Follows the official code where it says more than the paper: no target average on CIFAR-10 (mu = 0) and no warm-up.
Differs from it: the student starts at the teacher's averaged weights and not at its raw ones.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, distances, glue, teachers
from losses import consistency, conversions, edm, pairs, steps
from losses.types import Loss, Net
from models import ncsnpp, preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The official code's values; with l1 its learning rate is 2e-4."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",
            "lpips": "",
            "batch_size": 512,
            "steps": 800_000,
            "dropout": 0.0,
            "sigma_data": 0.5,
            "sigma_min": 0.002,
            "points": 18,
            "learning_rate": 4e-4,
            "average_decay": 0.9999,
            "grids": ((80.0,), (80.0, 0.58535)),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images)
    model = teachers.built_as(teacher, cifar10.unet(ncsnpp, config))
    F = teachers.network_of(teacher, model, config.sigma_data)
    metric = distances.lpips_or_l2(config.lpips)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data, config.sigma_min)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        denoiser = teacher.diffusion.on_path(context.frozen["teacher"], labels, edm)
        return consistency(
            f(params, labels, key_dropout),
            batch["image"],
            key_loss,
            pairs=partial(pairs.ct, points=config.points, sigma_min=config.sigma_min),
            step=partial(steps.heun, velocity=conversions.denoiser_to_velocity(edm, denoiser)),
            distance=metric.distance(context.frozen["metric"]),
        )

    samplers = glue.consistency_samplers(f, images.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        frozen=lambda: {"teacher": teacher.params(), "metric": metric.params()},
        optimizer=optax.radam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **cifar10.fields(config, images, samplers, flip=True),
    )
