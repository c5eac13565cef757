"""Improved consistency training on scikit-learn's digits (Song & Dhariwal 2023), from random weights.

    python main.py --config configs/digits_ict.py --workdir runs/digits_ict

Doubling curriculum from 11 to 1,281 noise levels, lognormal frequencies, pseudo-Huber with c = 0.00054 sqrt(d), no
target average. The noise levels are set for 64 pixels; the optimizer is that of the other runs on digits, Adam and not
the paper's RAdam.
"""

from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue
from losses import consistency, curricula, edm, pairs, pseudo_huber
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits.py."""
    config = digits_students.get_config()
    del config.teacher_run
    config.update({"s0": 10, "s1": 1280, "mean": 0.3, "std": 1.6, "huber_c_per_root_d": 0.00054, "learning_rate": 2e-3})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    f = digits_students.on_path(model, config, edm)
    distance = partial(pseudo_huber, c=config.huber_c_per_root_d * np.prod(source.shape) ** 0.5)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        points = curricula.ict_points(context.step, steps=config.steps, s0=config.s0, s1=config.s1)
        law = partial(pairs.ict, points=points, mean=config.mean, std=config.std)
        return consistency(f(params, batch.get("label")), batch["image"], key, pairs=law, distance=distance)

    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        **digits.fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm)),
    )
