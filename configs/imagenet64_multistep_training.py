r"""Multistep consistency training on ImageNet-64 (Heek et al. 2024, alg. 1), a model for each number of steps.

    python main.py --config configs/imagenet64_multistep_training.py --workdir runs/imagenet64_multistep_training \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_cosine --config.segments=2

Paper: FID-50k 7.2, 2.7, 1.8, 1.5, 1.5 in 1, 2, 4, 8, 16 steps with its small UViT of 394 M parameters, the network
here, on 64 TPU v5e; 6.4, 2.3, 1.6, 1.5, 1.6 with the large one of 1.23 B on 256, for about 21 hours. Ours: not run.

It starts from the weights of imagenet64_cosine.py, which tells how its network and path differ from the paper's.
Optimizer and average are from memory (unverified). There is no official code, and no weights of a UViT are published;
by :ADM the network is that of imagenet64_edm.py, and --config.teacher_run a converted EDM or any other diffusion model
that has it. Its path then ends at EDM's largest noise, 80.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from configs import glue, imagenet, imagenet64_cosine, teachers
from losses import conversions, cosine, curricula, pseudo_huber, segment_consistency, v_weight
from losses.types import Loss, Net
from models import preconditioning
from models.adm import adm
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params, averages


class Network(NamedTuple):
    """A network that these models can have: the values of its config, and how it is made of them."""

    values: Callable[[], ConfigDict]
    make: Callable[[ConfigDict], Any]


def adm_values() -> ConfigDict:
    """Those of imagenet64_edm.py's network, and what the paper's network is trained with."""
    config, paper = imagenet.common(), imagenet64_cosine.common()
    config.update({"dropout": 0.1, "end": 2 / math.pi * math.atan(80.0)})
    config.update({name: paper[name] for name in ("batch_size", "learning_rate", "average_decay")})
    return config


def uvit_values() -> ConfigDict:
    """Those of the paper's network, whose path ends where there is nothing but noise."""
    config = imagenet64_cosine.common()
    config.end = 1.0
    return config


NETWORKS = {
    "UViT": Network(uvit_values, imagenet64_cosine.network),
    "ADM": Network(adm_values, partial(imagenet.network, adm)),
}


def get_config(network: str = "UViT") -> ConfigDict:
    """The paper's values; with `distill` the steps are the teacher's, by aDDIM.

    Raises:
        ValueError: naming the networks that there are.
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}, this run has {' or '.join(NETWORKS)}")
    config = NETWORKS[network].values()
    config.update(
        {
            "network": network,
            "teacher_run": "",
            "segments": 2,
            "distill": False,
            "steps": 200_000,
            "first_intervals": 64,
            "last_intervals": 1280,
            "ramp_steps": 100_000,
            "eta": 0.75,
            "huber_c": 1e-4,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source)
    model = teachers.built_as(teacher, NETWORKS[config.network].make(config))
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        net = preconditioning.trigflow(F(params, labels, dropout), config.sigma_data)
        return conversions.trigflow_on_path(net, cosine, sigma_data=config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        intervals = curricula.multistep_intervals(
            context.step,
            segments=config.segments,
            ramp_steps=config.ramp_steps,
            first=config.first_intervals,
            last=config.last_intervals,
        )
        return segment_consistency(
            f(params, labels, key_dropout),
            batch["image"],
            key_loss,
            segments=config.segments,
            intervals=intervals,
            teacher=teacher.diffusion.on_path(context.frozen, labels, cosine) if config.distill else None,
            eta=config.eta,
            distance=partial(pseudo_huber, c=config.huber_c),
            weight=partial(v_weight, path=cosine),
            end=config.end,
        )

    n = config.segments
    solver = partial(ddim, path=cosine)
    sampler = glue.ode_sampler(f"ddim {n}", solver, n, f, source.shape, config.end * grids.linear(n), path=cosine)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=teacher.params if config.distill else lambda: None,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **imagenet.fields(config, source, (sampler,), average="ema"),
    )
