"""Multistep consistency models on scikit-learn's digits (Heek et al. 2024), trained or distilled.

    python main.py --config configs/digits_multistep.py --workdir runs/digits_multistep --config.segments=2 \
        --config.teacher_run=runs/digits_teacher

A model for each number of steps. Both start from the teacher's weights; with --config.distill=True the steps are the
teacher's too, by aDDIM.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, guiding, teachers
from losses import cosine, curricula, pseudo_huber, segment_consistency, v_weight
from losses.types import Loss
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The teacher's network and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "segments": 2,
            "distill": False,
            "guidance": 1.0,
            "first_intervals": 64,
            "last_intervals": 1280,
            "ramp_share": 0.5,
            "eta": 0.75,
            "huber_c": 1e-4,
            "learning_rate": 1e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    f = digits_students.on_path(model, config, cosine)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch.get("label")
        intervals = curricula.multistep_intervals(
            context.step,
            segments=config.segments,
            ramp_steps=max(int(config.steps * config.ramp_share), 1),
            first=config.first_intervals,
            last=config.last_intervals,
        )

        def denoiser(labels: jax.Array | None):
            return teacher.diffusion.on_path(context.frozen, labels, cosine)

        def guided():
            return guiding.classifier_free(denoiser, labels, num_classes=source.num_classes, scale=config.guidance)

        return segment_consistency(
            f(params, labels),
            batch["image"],
            key,
            segments=config.segments,
            intervals=intervals,
            teacher=guided() if config.distill else None,
            unguided=denoiser(labels) if config.distill and config.guidance != 1 else None,
            eta=config.eta,
            distance=partial(pseudo_huber, c=config.huber_c),
            weight=partial(v_weight, path=cosine),
        )

    times = grids.linear(config.segments)
    sampler = glue.ode_sampler(
        f"ddim {config.segments}", partial(ddim, path=cosine), config.segments, f, source.shape, times, path=cosine
    )
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=teacher.params if config.distill else lambda: None,
        **teachers.start(config.teacher_run, teacher),
        **digits.fields(config, source, (sampler,)),
    )
