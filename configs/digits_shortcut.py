"""Shortcut models on scikit-learn's digits (Frans et al. 2024): steps of 1, 1/2, ..., 1/128 by one network.

    python main.py --config configs/digits_shortcut.py --workdir runs/digits_shortcut

An eighth of a batch learns a step from two half ones of the averaged network, the rest flow matching.

Differs from the paper: no guidance, no clipping, no weight decay, and a target average made for 2,000 steps.
"""

import math
from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, flow_maps, glue
from losses import shortcut
from losses.types import Loss
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    config = flow_maps.get_config()
    config.update(
        {
            "finest": 128,  # steps of the smallest size
            "share": 0.125,
            "clip": 0.0,  # largest magnitude half way and of a goal; 0 is none
            "target_decay": 0.99,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source).clone(second_time=True)
    u_of = flow_maps.average_velocity(model, flow_maps.log2_step)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        x, labels = batch["image"], batch["label"]
        rows = round(config.share * len(x))
        return shortcut(
            u_of(params, labels),
            x,
            key,
            target=u_of(context.averages["target"], labels[:rows]),
            rows=rows,
            steps=config.finest,
            clip=config.clip or math.inf,
        )

    samplers = flow_maps.flow_map_samplers(flow_maps.jumps_of(u_of), source.shape, config.step_counts)
    fields = digits.fields(config, source, samplers)
    fields["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(init=glue.initialiser(model, source), objective=objective, **fields)
