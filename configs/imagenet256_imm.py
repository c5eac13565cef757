r"""Inductive moment matching on ImageNet-256 in latents (Zhou et al. 2025): IMM, DiT-XL/2, from random weights.

    python main.py --config configs/imagenet256_imm.py --workdir runs/imagenet256_imm \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 256 x 256 images as 32 x 32 x 4 latents of standard deviation 0.5, Stable Diffusion's in the paper, written by
`main.py --mode=encode`.

Paper: FID-50k 8.05 / 3.99 / 2.51 / 1.99 in 1 / 2 / 4 / 8 steps with guidance 1.5, 7.77 / 5.33 / 3.66 / 2.77 with 1.25.
Hardware: not said. Ours: not run. The code was released without its training: batch, number of steps, average, and the
a and b of the weight are unverified.

With --config.teacher_run=DIR it starts from a flow, such as a converted SiT, in its units: latents times 0.18215,
--config.sigma_data=1 --config.time_scale=1. The network then sees x_t as it is; the layers of s start at random.

Differs:
- Least time 0, in training and in sampling.
- A step of a guided sampler is counted as two network evaluations.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import flow_maps, flows, glue, guiding, imagenet256, imagenet256_shortcut
from losses import Path, conversions, imm_weight, inductive_moment_matching, linear, scaled, triples
from losses.types import FlowMap, Loss
from models import guide
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values, as far as they are known."""
    config = imagenet256_shortcut.common()
    config.update(
        {
            "width": 1152,
            "depth": 28,
            "heads": 16,
            "teacher_run": "",  # a flow to start from, such as a converted SiT
            "sigma_data": 0.5,
            "time_scale": 1000.0,
            # loss
            "particles": 4,
            "low": 0.0,
            "high": 0.994,
            "halvings": 12,
            "weight_a": 1.0,
            "weight_b": 4.0,
            "label_dropout": 0.1,
            # optimizer
            "steps": 1_200_000,
            "batch_size": 4096,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            # sampling
            "guidance": 1.5,
            "step_counts": (1, 2, 4, 8),
        }
    )
    return config


def jump_of(config: ConfigDict, path: Path, jump: conversions.Jump) -> Callable[[FlowMap], FlowMap]:
    """(network) -> its flow map: the paper's, or for a network that starts as a flow x_t - (t - s) F(x_t, t, s).

    Raises:
        ValueError: a flow's noise has unit size, and that of this run has not.
    """
    if not config.teacher_run:
        return lambda F: conversions.jump_to_flow_map(path, jump, F, sigma_data=config.sigma_data)
    if config.sigma_data != 1:
        raise ValueError(
            f"sigma_data is {config.sigma_data}, a flow's noise has size 1: start from it with --config.sigma_data=1"
            " and on its latents, those of Stable Diffusion times 0.18215"
        )
    return conversions.average_velocity_to_flow_map


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    guiding.check_null_class(config, config.guidance)
    space = imagenet256.space(config)
    source = space.source
    model = imagenet256_shortcut.network(config, source.num_classes, time_scale=config.time_scale)
    path, jump = scaled(linear, config.sigma_data), conversions.euler_jump(config.sigma_data)
    to_flow_map = jump_of(config, path, jump)
    F_of = flow_maps.average_velocity(model)

    def flow_map_of(params: Params, labels: jax.Array | None, *, scale: float = 1.0) -> FlowMap:
        def F(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            def at_s(labels: jax.Array | None):
                return lambda x_t, t: F_of(params, labels)(x_t, t, s)

            if scale == 1 or labels is None:
                return at_s(labels)(x_t, t)
            return guide(at_s(labels), at_s(jnp.full_like(labels, source.num_classes)), scale)(x_t, t)

        return to_flow_map(F)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        labels = guiding.drop_labels(key_labels, batch["label"], source.num_classes, config.label_dropout)
        law = partial(triples.imm, path=linear, time_of=lambda eta: eta / (1 + eta))
        return inductive_moment_matching(
            flow_map_of(params, labels),
            batch["image"],
            key_loss,
            triples=partial(law, low=config.low, high=config.high, halvings=config.halvings),
            scale=lambda t, s: jnp.abs(jump.out(t, s)),
            weight=partial(imm_weight, path=linear, a=config.weight_a, b=config.weight_b),
            particles=config.particles,
            path=path,
        )

    samplers = flow_maps.flow_map_samplers(
        partial(flow_map_of, scale=config.guidance),
        source.shape,
        config.step_counts,
        path=path,
        start=config.high,
        end=config.low,
        calls=1 if config.guidance == 1 else 2,
    )
    return Experiment(
        init=glue.initialiser(model, source),
        **flows.start(config, model, source),
        objective=objective,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
