"""Consistency training on scikit-learn's digits (Song et al. 2023, alg. 3), from random weights.

    python main.py --config configs/digits_ct.py --workdir runs/digits_ct

The square-root curriculum and the target average mu(k) of the paper, squared l2 instead of LPIPS. With the paper's
s1 = 150 and mu0 = 0.9 the target is too old for 2,000 steps: what is known at data does not get to the noise, and the
model settles on a constant (fd_pixels_2k 38 in one step).
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue
from losses import consistency, curricula, edm, l2, pairs
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits.py."""
    config = digits_students.get_config()
    del config.teacher_run
    config.update({"s0": 2, "s1": 20, "mu0": 0.5, "learning_rate": 2e-3})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    f = digits_students.on_path(model, config, edm)

    def points_at(step: jax.Array) -> jax.Array:
        return curricula.ct_points(step, steps=config.steps, s0=config.s0, s1=config.s1)

    def target_decay(step: jax.Array) -> jax.Array:
        return curricula.ct_target_decay(points_at(step), s0=config.s0, mu0=config.mu0)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch.get("label")
        return consistency(
            f(params, labels),
            batch["image"],
            key,
            pairs=partial(pairs.ct, points=points_at(context.step)),
            target=f(context.averages["target"], labels),
            distance=l2,
        )

    fields = digits.fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm))
    fields["averages"]["target"] = target_decay
    return Experiment(init=glue.initialiser(model, source), objective=objective, **fields)
