"""iLCT's claim on scikit-learn's digits (Dao et al. 2025): training on data with impulsive outliers, such as latents.

    python main.py --config configs/digits_outliers.py --workdir runs/digits_outliers

A small share of the numbers in the training images is enlarged, drawn anew each time an image is seen; samples are
clipped to the range of pixels and judged against the images as they are. By default all of iLCT: the Cauchy distance,
noise paired by optimal transport, norms without a scale in a U-Net of 16 channels. --config.distance=pseudo_huber or
l2, --config.transport=False and --config.scaling_norm=True take away one each.

The share and the factor are ours, and so is the budget. The pseudo-Huber's c is iCT's.
"""

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

import data
from configs import digits, digits_ilct, glue
from losses import (
    cauchy,
    curricula,
    edm,
    independent,
    l2,
    latent_consistency_training,
    on_host,
    optimal_transport,
    pairs,
    pseudo_huber,
)
from losses.types import Distance, Loss, Net
from models import preconditioning
from models.adm import ADMUNet, adm
from models.non_scaling_norm import non_scaling_norm
from train import Batch, Context, Experiment, Params

DISTANCES = ("cauchy", "pseudo_huber", "l2")


def get_config() -> ConfigDict:
    """The values of digits_ilct.py with another network, and the outliers."""
    config = digits_ilct.get_config()
    for name in ("patch", "width", "depth", "heads", "time_scale", "double_norm"):
        del config[name]
    config.update(
        {
            "steps": 800,
            "batch_size": 64,
            "s1": 160,
            "channels": 16,
            "outlier_share": 0.005,
            "outlier_factor": 8.0,
            "distance": "cauchy",
            "transport": True,
            "scaling_norm": False,
            "snapshot_every": 0,
            "grids": ((80.0,), (80.0, 0.8)),
        }
    )
    return config


def network(config: ConfigDict, source: data.Source) -> ADMUNet:
    """A U-Net of two resolutions with attention at the lower one."""
    model = adm(
        channels=config.channels,
        multipliers=(1, 2),
        blocks=1,
        attention_resolutions=(source.shape[0] // 2,),
        channels_per_head=config.channels,
        num_classes=source.num_classes,
        dropout=0.0,
    )
    return model if config.scaling_norm else model.clone(norm=non_scaling_norm)


def with_outliers(key: jax.Array, x: jax.Array, *, share: float, factor: float) -> jax.Array:
    """Images with a random share of their numbers multiplied by a factor."""
    return jnp.where(jax.random.bernoulli(key, share, x.shape), factor * x, x)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values.

    Raises:
        ValueError: for a distance that there is not.
    """
    if config.distance not in DISTANCES:
        raise ValueError(f"distance is {config.distance!r}; there are {', '.join(DISTANCES)}")
    source = data.digits()
    elements = prod(source.shape)
    model = network(config, source)

    def f(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.consistency(glue.bind(model, params, labels), config.sigma_data)

    def distance(points: jax.Array) -> Distance:
        if config.distance == "l2":
            return l2
        if config.distance == "pseudo_huber":
            return partial(pseudo_huber, c=0.00054 * elements**0.5)
        return partial(cauchy, c=curricula.cauchy_scale(points, elements=elements, s0=config.s0))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_outliers, key_loss = jax.random.split(key)
        labels = batch["label"]
        points = curricula.ict_points(context.step, steps=config.steps, s0=config.s0, s1=config.s1)
        coupling = partial(optimal_transport, assign=on_host(linear_sum_assignment), labels=labels)
        x = with_outliers(key_outliers, batch["image"], share=config.outlier_share, factor=config.outlier_factor)
        return latent_consistency_training(
            f(params, labels),
            x,
            key_loss,
            pairs=partial(pairs.ict, points=points, mean=config.mean, std=config.std),
            distance=distance(points),
            small_noise=curricula.small_noise(points),
            diffusion_weight=config.diffusion_weight,
            sigma_data=config.sigma_data,
            coupling=coupling if config.transport else independent,
        )

    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        **digits.fields(config, source, glue.consistency_samplers(f, source.shape, config.grids, path=edm)),
    )
