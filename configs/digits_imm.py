"""Inductive moment matching on scikit-learn's digits (Zhou et al. 2025): jumps that agree in law, without a teacher.

    python main.py --config configs/digits_imm.py --workdir runs/digits_imm

Groups of four particles share their times; jumps to s from t and from a little below are compared by a kernel.

Differs from the paper: t and s are shown to the network as they are, and not 1000 times that.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, flow_maps, glue
from losses import conversions, imm_weight, inductive_moment_matching, linear, scaled, triples
from losses.types import FlowMap, Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    config = flow_maps.get_config()
    config.update(
        {
            "sigma_data": 0.75,
            "simple_edm": False,  # or Euler-FM
            "particles": 4,
            "low": 0.006,
            "high": 0.994,
            "halvings": 12,
            "weight_a": 1.0,
            "weight_b": 5.0,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source).clone(second_time=True)
    path = scaled(linear, config.sigma_data)
    jump = (
        conversions.edm_jump(path, config.sigma_data)
        if config.simple_edm
        else conversions.euler_jump(config.sigma_data)
    )
    F_of = flow_maps.average_velocity(model)

    def flow_map_of(params: Params, labels: jax.Array | None) -> FlowMap:
        return conversions.jump_to_flow_map(path, jump, F_of(params, labels), sigma_data=config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        law = partial(triples.imm, path=linear, time_of=lambda eta: eta / (1 + eta))
        return inductive_moment_matching(
            flow_map_of(params, batch["label"]),
            batch["image"],
            key,
            triples=partial(law, low=config.low, high=config.high, halvings=config.halvings),
            scale=lambda t, s: jnp.abs(jump.out(t, s)),
            weight=partial(imm_weight, path=linear, a=config.weight_a, b=config.weight_b),
            particles=config.particles,
            path=path,
        )

    samplers = flow_maps.flow_map_samplers(
        flow_map_of, source.shape, config.step_counts, path=path, start=config.high, end=config.low
    )
    return Experiment(
        init=glue.initialiser(model, source), objective=objective, **digits.fields(config, source, samplers)
    )
