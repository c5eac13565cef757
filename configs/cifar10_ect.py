r"""Easy Consistency Tuning on CIFAR-10 (Geng et al. 2024): a diffusion model of ours, tuned into a consistency model.

    python main.py --config configs/cifar10_ect.py --workdir runs/cifar10_ect --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_edm

Official code: FID-50k 3.60 in one step and 2.11 in two after 400k steps of batch 128, 3.86 and 2.15 after these 200k,
from EDM's own weights. One hour on an A100 gives 2.73 in two steps (unverified), by --config.steps=8000 --config.q=256
--config.last_stage=0 --config.average_decay=0.9993. Ours: not run. Without teacher_run it starts from random weights,
which the paper does not do. With --config.snr_weighting=True --config.huber_c=0.06 the weighting is that of the paper's
ImageNet runs.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, glue, teachers
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber
from losses.types import Loss, Net
from models import ddpmpp, preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The values of the official code's main branch."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",
            "batch_size": 128,
            "steps": 200_000,
            "dropout": 0.2,
            "sigma_data": 0.5,
            "mean": -1.1,
            "std": 2.0,
            "q": 2.0,
            "stage_steps": 25_000,
            "last_stage": 7,
            "snr_weighting": False,
            "huber_c": 0.0,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            "sample_sigma_min": 0.003,
            "grids": ((80.0,), (80.0, 0.821)),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images, starts=True)
    model = teachers.built_as(teacher, cifar10.unet(ddpmpp, config))
    F = teachers.network_of(teacher, model, config.sigma_data)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data)

    def f_sampled(params: Params, labels: jax.Array | None) -> Net:
        # The official code samples with the boundary at 0.003, which it does not train with.
        return preconditioning.consistency(F(params, labels), config.sigma_data, config.sample_sigma_min)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        law = partial(
            pairs.ect,
            stage=curricula.ect_stage(context.step, stage_steps=config.stage_steps, last=config.last_stage),
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data) if config.snr_weighting else None,
        )
        distance = partial(pseudo_huber, c=config.huber_c)
        return consistency(
            f(params, batch.get("label"), key_dropout), batch["image"], key_loss, pairs=law, distance=distance
        )

    samplers = glue.consistency_samplers(f_sampled, images.shape, config.grids, path=edm)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        optimizer=optax.radam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **cifar10.fields(config, images, samplers, flip=False),
    )
