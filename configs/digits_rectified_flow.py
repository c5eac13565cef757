"""Rectified flow on scikit-learn's digits: straight paths, uniform times, Euler steps.

    python main.py --config configs/digits_rectified_flow.py --workdir runs/digits_rectified_flow

Liu et al. 2022, first round (independent coupling). NUMBERS
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

import data
from configs import digits, glue
from losses import linear, rectified_flow
from losses.types import Loss, Net
from models import preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The network and budget of digits.py, with the flow's objective."""
    config = digits.get_config()
    for name in ("q", "stages", "huber_c", "grids", "mean", "std", "sigma_data"):
        del config[name]
    config.learning_rate = 2e-3
    config.euler_steps = (1, 2, 4, 32)
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        return rectified_flow(velocity(params, batch.get("label")), batch["image"], key)

    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, config.steps)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        optimizer=optax.adam(schedule, b2=0.99),
        averages={"ema": partial(averages.power, sigma_rel=config.average_sigma_rel)},
        samplers=tuple(
            glue.ode_sampler(f"euler {n}", euler, n, velocity, source.shape, grids.linear(n), path=linear)
            for n in config.euler_steps
        ),
        judge=glue.judge_with_classifier(source, training=data.digits("train"), held_out=data.digits("held_out")),
        judged_average="ema",
        judged_samples=config.judged_samples,
        steps=config.steps,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        **glue.image_data(source, seed=config.seed, batch_size=config.batch_size),
    )
