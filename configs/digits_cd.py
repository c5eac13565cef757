"""Consistency distillation on scikit-learn's digits (Song et al. 2023, alg. 2), by Heun or Euler steps of the teacher.

    python main.py --config configs/digits_cd.py --workdir runs/digits_cd --config.teacher_run=runs/digits_teacher

As on CIFAR-10: 18 noise levels, no target average; squared l2 instead of LPIPS, which knows nothing of digits.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, guiding, teachers
from losses import consistency, conversions, edm, l2, pairs, steps
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The teacher's network and the budget of digits.py."""
    config = digits_students.get_config()
    config.update({"points": 18, "heun": True, "guidance": 1.0, "learning_rate": 1e-3})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    f = digits_students.on_path(model, config, edm)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch.get("label")
        denoiser = guiding.classifier_free(
            lambda labels: teacher.diffusion.on_path(context.frozen, labels, edm),
            labels,
            num_classes=source.num_classes,
            scale=config.guidance,
        )
        step = steps.heun if config.heun else steps.euler
        return consistency(
            f(params, labels),
            batch["image"],
            key,
            pairs=partial(pairs.ct, points=config.points),
            step=partial(step, velocity=conversions.denoiser_to_velocity(edm, denoiser)),
            distance=l2,
        )

    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=teacher.params,
        **teachers.start(config.teacher_run, teacher),
        **digits.fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm)),
    )
