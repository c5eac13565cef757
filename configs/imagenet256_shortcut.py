r"""Shortcut models of ImageNet-256 in latents (Frans et al. 2024): DiT-B/2 and, by :XL, DiT-XL/2, from random weights.

    python main.py --config configs/imagenet256_shortcut.py --workdir runs/imagenet256_shortcut \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_shortcut.py:XL --workdir runs/imagenet256_shortcut_xl \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 256 x 256 images as 32 x 32 x 4 latents, Stable Diffusion's in the paper, written by `main.py --mode=encode`.

Paper: FID-50k 15.5, 28.3, 40.3 for B and 3.8, 7.8, 10.6 for XL, in 128, 4 and 1 steps. Hardware: not said. Ours: not
run. Batch and number of steps are unverified.

Differs:
- Rows that bootstrap have images and noise of their own; in the code those are also rows of flow matching.
- Queries are divided by the root of the width of a head, in the code by the width.
- 128 steps are sampled without guidance, of the smallest step too.
"""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import flow_maps, flows, glue, guiding, imagenet256, judged
from losses import shortcut
from losses.types import AverageVelocity, Loss
from models import DiT
from train import Batch, Context, Experiment, Params, averages

VARIANTS: dict[str, dict[str, Any]] = {
    "B": {"width": 768, "depth": 12, "heads": 12},
    "XL": {"width": 1152, "depth": 28, "heads": 16},
}


def get_config(variant: str = "B") -> ConfigDict:
    """The paper's values for one of its networks.

    Raises:
        ValueError: naming the networks that there are.
    """
    if variant not in VARIANTS:
        raise ValueError(f"network is {variant!r}, this run is published with {', '.join(VARIANTS)}")
    config = common()
    config.update(
        {
            **VARIANTS[variant],
            "teacher_run": "",  # a flow to start from, such as a converted SiT
            # loss
            "finest": 128,
            "share": 0.125,
            "clip": 4.0,
            "label_dropout": 0.1,
            "guidance": 1.5,
            # optimizer
            "steps": 800_000,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "weight_decay": 0.1,
            "average_decay": 0.999,
            "step_counts": (1, 4, 128),
        }
    )
    return config


def common() -> ConfigDict:
    """What runs on these latents have in common."""
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            "patch": 2,
            "bfloat16": True,
            "accumulate": 1,
            "fsdp": 1,
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def network(config: ConfigDict, num_classes: int, *, time_scale: float) -> DiT:
    """The transformer of the paper, told a second time."""
    return DiT(
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        num_classes=num_classes,
        second_time=True,
        time_scale=time_scale,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def guided_where_smallest(
    u_of: flow_maps.AverageVelocityOf, params: Params, labels: jax.Array, *, null: int, scale: float, rows: int
) -> AverageVelocity:
    """The mean velocity, guided against the null class in the first rows, which have the smallest step."""
    whole, some = u_of(params, labels), u_of(params, jnp.full_like(labels[:rows], null))

    def u(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        conditional = whole(x_t, t, s)
        worse = some(x_t[:rows], t[:rows], s[:rows])
        return conditional.at[:rows].add((scale - 1) * (conditional[:rows] - worse))

    return u


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    guiding.check_null_class(config, config.guidance)
    space = imagenet256.space(config)
    source = space.source
    model = network(config, source.num_classes, time_scale=1.0)
    u_of = flow_maps.average_velocity(model, flow_maps.log2_step)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        x, labels = batch["image"], batch["label"]
        rows = round(config.share * len(x))
        smallest = rows // (config.finest.bit_length() - 1)
        target = guided_where_smallest(
            u_of,
            context.averages["ema"],
            labels[:rows],
            null=source.num_classes,
            scale=config.guidance,
            rows=smallest,
        )
        rest = guiding.drop_labels(key_labels, labels[rows:], source.num_classes, config.label_dropout)
        labels = jnp.concatenate([labels[:rows], cast(jax.Array, rest)])
        return shortcut(
            u_of(params, labels), x, key_loss, target=target, rows=rows, steps=config.finest, clip=config.clip
        )

    samplers = flow_maps.flow_map_samplers(flow_maps.jumps_of(u_of), source.shape, config.step_counts)
    return Experiment(
        init=glue.initialiser(model, source),
        **flows.start(config, model, source),
        objective=objective,
        optimizer=optax.adamw(config.learning_rate, b2=0.999, weight_decay=config.weight_decay),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
