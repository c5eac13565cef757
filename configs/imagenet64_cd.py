r"""Consistency distillation on ImageNet-64 (Song et al. 2023, alg. 2): Heun steps of an EDM model of ours, LPIPS.

    python main.py --config configs/imagenet64_cd.py --workdir runs/imagenet64_cd --config.data=FOLDER \
        --config.teacher_run=runs/imagenet64_edm --config.lpips=FILE.npz

Paper: FID-50k 6.20 in one step and 4.70 in two, class-conditional, 600k steps of batch 2,048, on A100s whose number it
does not say. Ours: not run. Without an LPIPS file the distance is squared l2, which the paper found worse.

Differs from the official code: the U-Net is EDM's form of ADM (groups of four channels or more, ln(t) / 4 as it is),
the student starts at the teacher's averaged weights, and it is bfloat16 where that has float16.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import distances, glue, imagenet, teachers
from losses import consistency, conversions, edm, pairs, steps
from losses.types import Loss, Net
from models import preconditioning, vgg
from models.adm import adm
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The official code's values."""
    config = imagenet.common()
    config.update(
        {
            "teacher_run": "",
            "lpips": "",
            "batch_size": 2048,
            "steps": 600_000,
            "dropout": 0.0,
            "sigma_min": 0.002,
            "points": 40,
            "target_decay": 0.95,
            "learning_rate": 8e-6,
            "average_decay": 0.999943,
            "grids": ((80.0,), (80.0, 1.38237)),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source)
    model = teachers.built_as(teacher, imagenet.network(adm, config))
    F = teachers.network_of(teacher, model, config.sigma_data)
    metric = distances.lpips_or_l2(config.lpips, pool=vgg.average_pool)

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
            target=f(context.averages["target"], labels, key_dropout),
            distance=metric.distance(context.frozen["metric"]),
        )

    samplers = glue.consistency_samplers(f, source.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=lambda: {"teacher": teacher.params(), "metric": metric.params()},
        optimizer=optax.radam(config.learning_rate),
        averages={
            "target": partial(averages.constant, decay=config.target_decay),
            "ema": partial(averages.constant, decay=config.average_decay),
        },
        **teachers.start(config.teacher_run, teacher),
        # The official loader mirrors at random by default (unverified).
        **imagenet.fields(config, source, samplers, average="ema", flip=True),
    )
