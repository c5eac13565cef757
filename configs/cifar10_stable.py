r"""Stable Consistency Tuning on CIFAR-10 (Wang et al. 2024): ECT with a target of less variance.

    python main.py --config configs/cifar10_stable.py --workdir runs/cifar10_stable --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_edm

Paper: FID-50k about 3.11 in one step and 2.05 in two (unverified), unconditional. Hardware: not known. Ours: not run.
The paper's code is not public and its hyper-parameters were not at hand: all values are ECT's, also the schedule of
t - s, which the paper makes smoother. The reference set of an image is the batch, or with classes the rest of its own.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, cifar10_ect, glue, teachers
from losses import consistency, curricula, edm, pairs, pseudo_huber, reference_sets
from losses.types import Loss, Net
from models import ddpmpp, preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The values of cifar10_ect.py; unverified for this method."""
    config = cifar10_ect.get_config()
    del config.snr_weighting
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
        return preconditioning.consistency(F(params, labels), config.sigma_data, config.sample_sigma_min)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        x, labels = batch["image"], batch.get("label")
        stage = curricula.ect_stage(context.step, stage_steps=config.stage_steps, last=config.last_stage)
        return consistency(
            f(params, labels, key_dropout),
            x,
            key_loss,
            pairs=partial(pairs.ect, stage=stage, mean=config.mean, std=config.std, q=config.q),
            step=partial(reference_sets.average, references=x, allowed=reference_sets.others(len(x), labels)),
            distance=partial(pseudo_huber, c=config.huber_c),
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
