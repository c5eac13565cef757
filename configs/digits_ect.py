"""Easy Consistency Tuning on scikit-learn's digits (Geng et al. 2024): a diffusion model, tuned.

    python main.py --config configs/digits_ect.py --workdir runs/digits_ect --config.teacher_run=runs/digits_teacher

Both published weightings: 1/(t - s) with the plain norm, as on CIFAR-10, or, by default, EDM's with c = 0.06, as on
ImageNet-64. `digits.py` is the same method from random weights.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, teachers
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The teacher's network, the budget of digits.py, and ECT's ImageNet weighting."""
    config = digits_students.get_config()
    config.update(
        {
            "mean": 0.3,
            "std": 1.6,
            "q": 2.0,
            "stages": 6,
            "snr_weighting": True,
            "huber_c": 0.06,
            "learning_rate": 2e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any images, with the rest of the experiment from `fields`."""
    model = digits.network(config, source)
    teacher = digits_students.teacher(config, source)
    f = digits_students.on_path(model, config, edm)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        stage_steps = max(config.steps // config.stages, 1)
        law = partial(
            pairs.ect,
            stage=curricula.ect_stage(context.step, stage_steps=stage_steps, last=config.stages - 1),
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data) if config.snr_weighting else None,
        )
        distance = partial(pseudo_huber, c=config.huber_c)
        return consistency(f(params, batch.get("label")), batch["image"], key, pairs=law, distance=distance)

    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        **teachers.start(config.teacher_run, teacher),
        **fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm)),
    )
