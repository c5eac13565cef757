"""A run small enough for tests: an affine denoiser of Gaussian vectors, with every part of the trainer in use."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from losses import denoising
from train import Experiment, Sampler, averages

DIM = 16


def batches(start: int, *, batch_size: int, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    step = start
    while True:
        yield {"image": np.random.default_rng([seed, step]).normal(0.3, 0.5, (batch_size, DIM)).astype(np.float32)}
        step += 1


def init(key: jax.Array) -> dict[str, jax.Array]:
    return {"weight": 0.1 * jax.random.normal(key, (DIM, DIM)), "bias": jnp.zeros(DIM)}


def net_of(params: dict[str, jax.Array]) -> Any:
    return lambda x, t: x @ params["weight"] / (1 + t[:, None] ** 2) + params["bias"]


def objective(params, batch, key, context):
    return denoising(net_of(params), batch["image"], key)


def experiment(**changes: Any) -> Experiment:
    batch_size = changes.get("batch_size", 16)
    base = Experiment(
        init=init,
        objective=objective,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
        averages={
            "constant": partial(averages.constant, decay=0.9),
            "half_life": partial(averages.half_life, images=64, batch_size=batch_size),
            "short": partial(averages.power, sigma_rel=0.05),
            "long": partial(averages.power, sigma_rel=0.10),
        },
        batches=partial(batches, batch_size=batch_size),
        fingerprint={"name": "gaussian", "seed": 0},
        prepare=lambda key, batch: batch,
        samplers=(Sampler("one", 1, lambda params, keys, labels: jnp.zeros((len(labels), DIM))),),
        judge=lambda batches: [],
        judged_average="constant",
        judged_samples=4,
        batch_size=batch_size,
        steps=20,
        log_every=5,
        checkpoint_every=8,
    )
    return base._replace(**changes)
