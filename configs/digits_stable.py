r"""Stable Consistency Tuning on scikit-learn's digits (Wang et al. 2024): ECT with a target of less variance.

    python main.py --config configs/digits_stable.py --workdir runs/digits_stable \
        --config.teacher_run=runs/digits_teacher

The reference set of an image is the rest of its class in the batch, and itself. With --config.weaker_run=DIR and
--config.guidance=W the samples are guided by a weaker model, the weights of another run of this config.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_ect, digits_students, glue, guiding, teachers
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber, reference_sets
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of digits_ect.py."""
    config = digits_ect.get_config()
    del config.snr_weighting
    # Guidance of the samples by a weaker model: a shorter run of this config, say.
    config.weaker_run = ""
    config.guidance = 1.0
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    teacher = digits_students.teacher(config, source)
    f = digits_students.on_path(model, config, edm)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        x, labels = batch["image"], batch.get("label")
        stage_steps = max(config.steps // config.stages, 1)
        law = partial(
            pairs.ect,
            stage=curricula.ect_stage(context.step, stage_steps=stage_steps, last=config.stages - 1),
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )
        return consistency(
            f(params, labels),
            x,
            key,
            pairs=law,
            step=partial(reference_sets.average, references=x, allowed=reference_sets.others(len(x), labels)),
            distance=partial(pseudo_huber, c=config.huber_c),
        )

    average = f"power_{config.sigma_rels[0]:.2f}"
    sampled = guiding.by_weaker(f, config.weaker_run, average, scale=config.guidance) if config.weaker_run else f
    samplers = glue.consistency_samplers(
        sampled, source.shape, config.grids, path=edm, calls=2 if config.weaker_run else 1
    )
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        **teachers.start(config.teacher_run, teacher),
        **digits.fields(config, source, samplers),
    )
