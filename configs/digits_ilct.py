"""iLCT on scikit-learn's digits (Dao et al. 2025), in pixels: consistency training that is made for latents.

    python main.py --config configs/digits_ilct.py --workdir runs/digits_ilct

From random weights: iCT's levels and frequencies, the Cauchy distance with a scale that falls with the number of
levels, a diffusion loss at small noise, noise paired with data of its class by optimal transport. The paper's norm
without a scale is what this network has anyway.

Differs from the paper: noise is paired within classes, as the network is class-conditional; Adam, as in the other
runs on digits; noise levels for 64 pixels.
"""

from functools import partial
from math import prod

import jax
from ml_collections import ConfigDict
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

import data
from configs import digits, digits_students, glue
from losses import cauchy, curricula, edm, latent_consistency_training, on_host, optimal_transport, pairs
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits.py."""
    config = digits_students.get_config()
    del config.teacher_run
    config.update(
        {"s0": 10, "s1": 640, "mean": 0.3, "std": 1.6, "diffusion_weight": 5.0, "groups": 1, "learning_rate": 2e-3}
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any examples, with the rest of the experiment from `fields`."""
    f = digits_students.on_path(digits.network(config, source), config, edm)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        points = curricula.ict_points(context.step, steps=config.steps, s0=config.s0, s1=config.s1)
        labels = batch["label"]
        return latent_consistency_training(
            f(params, labels),
            batch["image"],
            key,
            pairs=partial(pairs.ict, points=points, mean=config.mean, std=config.std),
            distance=partial(cauchy, c=curricula.cauchy_scale(points, elements=prod(source.shape), s0=config.s0)),
            small_noise=curricula.small_noise(points),
            diffusion_weight=config.diffusion_weight,
            sigma_data=config.sigma_data,
            coupling=partial(
                optimal_transport, assign=on_host(linear_sum_assignment), labels=labels, groups=config.groups
            ),
        )

    return Experiment(
        init=glue.initialiser(digits.network(config, source), source),
        objective=objective,
        **fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm)),
    )
