"""ECT on scikit-learn's 1,797 handwritten digits: a class-conditional consistency model in minutes on a laptop.

    python main.py --config configs/digits.py --workdir runs/digits

Easy Consistency Tuning (Geng et al. 2024), from scratch. NUMBERS
"""

from functools import partial

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import data
from configs import glue
from losses import consistency, curricula, edm, pairs, pseudo_huber
from losses.types import Net
from models import DiT, preconditioning
from train import Context, Experiment, averages


def get_config() -> ConfigDict:
    """The values of the run; any of them can be given on the command line."""
    return ConfigDict(
        {
            "seed": 0,
            "steps": 3500,
            "batch_size": 128,
            # network
            "patch": 4,
            "width": 128,
            "depth": 3,
            "heads": 4,
            "sigma_data": 0.75,
            # noise levels and their pairs
            "mean": -0.4,
            "std": 1.4,
            "q": 2.0,
            "stages": 6,
            "huber_c": 0.06,
            # optimizer
            "learning_rate": 2e-3,
            "warmup_steps": 100,
            "average_decay": 0.995,
            # sampling and judging
            "grids": ((80.0,), (80.0, 0.8), (80.0, 5.0, 1.5, 0.5)),
            "judged_samples": 2000,
            "log_every": 50,
            "checkpoint_every": 1000,
        }
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = DiT(
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        num_classes=source.num_classes,
    )

    def f(params, labels) -> Net:
        """The consistency function at these parameters."""
        return preconditioning.consistency(
            lambda x, t: model.apply({"params": params}, x, t, labels), sigma_data=config.sigma_data
        )

    def init(key):
        x = jnp.zeros((1, *source.shape))
        return model.init(key, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))["params"]

    def objective(params, batch, key, context: Context):
        stage = curricula.ect_stage(context.step, stage_steps=config.steps // config.stages, last=config.stages - 1)
        return consistency(
            f(params, batch["label"]),
            batch["image"],
            key,
            pairs=partial(pairs.ect, stage=stage, mean=config.mean, std=config.std, q=config.q),
            distance=partial(pseudo_huber, c=config.huber_c),
        )

    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, config.steps)
    order = {"seed": config.seed, "batch_size": config.batch_size}
    return Experiment(
        init=init,
        objective=objective,
        optimizer=optax.adam(schedule, b2=0.99),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        batches=glue.first_checked(source, num_classes=source.num_classes, **order),
        fingerprint=data.fingerprint(source, **order),
        prepare=glue.to_model,
        samplers=glue.consistency_samplers(f, source.shape, config.grids, path=edm),
        judge=glue.judge_with_classifier(source, train=data.digits("train"), held_out=data.digits("held_out")),
        judged_average="ema",
        judged_samples=config.judged_samples,
        batch_size=config.batch_size,
        steps=config.steps,
        seed=config.seed,
        num_classes=source.num_classes,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
    )
