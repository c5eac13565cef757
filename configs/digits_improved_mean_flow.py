"""Improved MeanFlow on scikit-learn's digits (Geng et al. 2025): a regression of the velocity, by the mean velocity.

    python main.py --config configs/digits_improved_mean_flow.py --workdir runs/digits_improved_mean_flow

The network is told t - s alone, as in the paper, and returns both velocities: it sees and makes an image of twice the
channels. Half of the examples have s < t.

Differs from the paper: the transformer of the other runs on digits with a head that is one layer, not conditions as
tokens and heads of eight blocks; no guidance, which that network takes as an input.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, flow_maps, glue
from losses import conversions, improved_mean_flow, pairs
from losses.improved_mean_flow import Guidance, TwoHeads, unguided
from losses.types import FlowMap, Loss
from models import DiT
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits_students.py, with the paper's values for ImageNet."""
    config = digits_students.get_config()
    for name in ("teacher_run", "grids", "sigma_data"):
        del config[name]
    config.update(
        {
            "learning_rate": 2e-3,
            "mean": -0.4,
            "std": 1.0,
            "jump_share": 0.5,
            "power": 1.0,
            "power_c": 0.01,
            "step_counts": (1, 2, 4, 8, 32),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any images, with the rest of the experiment from `fields`."""
    model = digits.network(config, source)
    *size, channels = source.shape

    def init(key: jax.Array) -> Params:
        x, labels = jnp.zeros((1, *size, 2 * channels)), jnp.zeros(1, jnp.int32)
        return model.init(key, x, jnp.zeros(1), labels if source.num_classes else None)["params"]

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        return improved_mean_flow(
            two_heads(model, params),
            batch["image"],
            key,
            y=batch.get("label"),
            pairs=partial(pairs.sorted_logit_normal, mean=config.mean, std=config.std),
            jump_share=config.jump_share,
            p=config.power,
            c=config.power_c,
        )

    def flow_map_of(params: Params, labels: jax.Array | None) -> FlowMap:
        net = two_heads(model, params)
        return conversions.average_velocity_to_flow_map(lambda x_t, t, s: net(x_t, t, s, labels, unguided(t))[0])

    samplers = flow_maps.flow_map_samplers(flow_map_of, source.shape, config.step_counts)
    return Experiment(init=init, objective=objective, **fields(config, source, samplers))


def two_heads(model: DiT, params: Params) -> TwoHeads:
    """The two halves of the channels that a network makes of the image twice, told t - s as its only time."""

    def net(
        x_t: jax.Array, t: jax.Array, s: jax.Array, y: jax.Array | None, guidance: Guidance
    ) -> tuple[jax.Array, jax.Array]:
        both = glue.bind(model, params, y)(jnp.concatenate([x_t, x_t], axis=-1), t - s)
        u, v = jnp.split(both, 2, axis=-1)
        return u, v

    return net
