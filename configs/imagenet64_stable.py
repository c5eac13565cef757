r"""Stable Consistency Tuning on ImageNet-64 (Wang et al. 2024): ECT with a target of less variance, in four sizes.

    python main.py --config configs/imagenet64_stable.py --workdir runs/imagenet64_stable --config.data=FOLDER \
        --config.teacher_run=runs/imagenet64_edm2

Paper: FID-50k 2.42 in one step and 1.55 in two, of an unknown size and batch. Hardware: not known. Ours: not run. The
paper's code is not public and its hyper-parameters were not at hand: all values are ECT's, also the schedule of t - s,
which the paper makes smoother. The reference set of an image is the rest of its class in the batch: at 128 images of a
thousand classes mostly nothing, where this is ECT. It takes thousands of images to differ, --config.batch_size=8192.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, imagenet, imagenet64_ect, teachers
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber, reference_sets
from losses.types import Loss, Net
from models import preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config(size: str = "S") -> ConfigDict:
    """The values of imagenet64_ect.py; unverified for this method."""
    return imagenet64_ect.get_config(size)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source, starts=True)
    model = teachers.built_as(teacher, imagenet64_ect.network(config))
    F = teachers.network_of(teacher, model, config.sigma_data)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        x, labels = batch["image"], batch.get("label")
        law = partial(
            pairs.ect,
            stage=curricula.ect_stage(context.step, stage_steps=config.stage_steps, last=config.last_stage),
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )
        return consistency(
            f(params, labels, key_dropout),
            x,
            key_loss,
            pairs=law,
            step=partial(reference_sets.average, references=x, allowed=reference_sets.others(len(x), labels)),
            distance=partial(pseudo_huber, c=config.huber_c),
        )

    samplers = glue.consistency_samplers(f, source.shape, config.grids, path=edm)
    averaging = imagenet.power_averages(config)
    averaging["averages"]["ema"] = partial(averages.constant, decay=config.average_decay)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        optimizer=imagenet.edm2_optimizer(config),
        **averaging,
        **teachers.start(config.teacher_run, teacher),
        **imagenet.fields(config, source, samplers, average="ema"),
    )
