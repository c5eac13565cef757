r"""Improved MeanFlow on latents of ImageNet-256 (Geng et al. 2025), guidance as an input, from scratch, in four sizes.

    python main.py --config configs/imagenet256_improved_mean_flow.py --workdir runs/imagenet256_improved_mean_flow \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_improved_mean_flow.py:XL/2 --workdir runs/improved_mean_flow_xl \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data as in imagenet256_mean_flow.py. Sizes B/2 (the default), M/2, L/2, XL/2.

Code: FID-50k in one step 3.39 (B/2), 2.27 (M/2), 1.86 (L/2), 1.72 (XL/2), and 1.54 in two with XL/2. Hardware: not
said. Ours: not run. The epochs of the sizes above B/2 are unverified.

Differs: the network's own velocity is asked for once, for guidance and for the derivative; every other example has
s < t, not one half of a batch. Latents are not mirrored. Unverified: that labels are dropped from all examples alike,
and that the velocity without label is asked for at the example's own scale.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import train
from configs import glue, guiding, imagenet256, imagenet256_mean_flow, judged, latents
from losses import conversions, improved_mean_flow, pairs, power_law_guidance
from losses.improved_mean_flow import Guidance, GuidanceLaw, TwoHeads
from losses.types import FlowMap, Loss
from models import IN_CONTEXT_SIZES, InContextDiT
from samplers import flow_map, grids
from samplers.noise import initial
from train import Batch, Context, Experiment, Params, averages, schedules

# Steps, scale, and the times that are guided; the default of the code, and what it gives for XL/2.
GUIDED = ((1, 8.0, 0.4, 0.65), (2, 8.0, 0.4, 0.65))
GUIDED_XL = ((1, 8.0, 0.42, 0.62), (2, 4.0, 0.36, 0.64))
VARIANTS = {f"{name}/2": GUIDED_XL if name == "XL" else GUIDED for name in IN_CONTEXT_SIZES}


def get_config(size: str = "B/2") -> ConfigDict:
    """The code's values for a size.

    Raises:
        ValueError: naming the sizes that there are.
    """
    if size not in VARIANTS:
        raise ValueError(f"size is {size!r}, this run is published in {', '.join(VARIANTS)}")
    batch_size = 1024
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            # network
            "patch": 2,
            **IN_CONTEXT_SIZES[size.removesuffix("/2")]._asdict(),
            "head_depth": 8,
            "bfloat16": False,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            # times, weight, guidance
            "mean": -0.4,
            "std": 1.0,
            "jump_share": 0.5,
            "power": 1.0,
            "power_c": 0.01,
            "label_dropout": 0.1,
            "beta": 1.0,
            "largest_omega": 8.0,
            # optimizer
            "batch_size": batch_size,
            "steps": 640 * imagenet256_mean_flow.EPOCH // batch_size,
            "learning_rate": 1e-4,
            "warmup_steps": 10 * imagenet256_mean_flow.EPOCH // batch_size,
            "average_decay": 0.9999,
            "accumulate": 1,
            "fsdp": 1,
            # sampling and judging
            "guided": VARIANTS[size],
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def network(config: ConfigDict, num_classes: int) -> InContextDiT:
    """The transformer whose conditions are tokens, of two heads."""
    return InContextDiT(
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        head_depth=config.head_depth,
        num_classes=num_classes,
        remat=glue.remat(config.remat),
        unroll=config.unroll,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    guiding.check_null_class(config, config.largest_omega)
    space = imagenet256.space(config)
    shape, classes = space.source.shape, space.source.num_classes
    model = network(config, classes)

    def init(key: jax.Array) -> Params:
        one = jnp.ones(1)
        return model.init(key, jnp.zeros((1, *shape)), one, jnp.zeros(1, jnp.int32), one, one, one)["params"]

    def heads_of(params: Params) -> TwoHeads:
        def net(x_t: jax.Array, t: jax.Array, s: jax.Array, y: Any, g: Guidance) -> tuple[jax.Array, jax.Array]:
            heads = model.apply({"params": params}, x_t, t - s, y, g.omega, g.low, g.high)
            return cast(tuple[jax.Array, jax.Array], heads)

        return net

    guidance = partial(power_law_guidance, beta=config.beta, largest=config.largest_omega)
    samplers = tuple(guided_sampler(heads_of, shape, *numbers) for numbers in config.guided)
    return experiment(config, space, init, heads_of, guidance, samplers)


def experiment(
    config: ConfigDict,
    space: latents.Space,
    init: Callable[[jax.Array], Params],
    heads_of: Callable[[Params], TwoHeads],
    guidance: GuidanceLaw,
    samplers: tuple[train.Sampler, ...],
) -> Experiment:
    """The same with any network of two heads, `heads_of` its parameters."""
    classes = space.source.num_classes

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        return improved_mean_flow(
            heads_of(params),
            batch["image"],
            key_loss,
            y=guiding.drop_labels(key_labels, batch["label"], classes, config.label_dropout),
            guidance=guidance,
            null=classes,
            pairs=partial(pairs.sorted_logit_normal, mean=config.mean, std=config.std),
            jump_share=config.jump_share,
            p=config.power,
            c=config.power_c,
        )

    rate = schedules.warmup_constant(config.learning_rate, steps=config.warmup_steps)
    return Experiment(
        init=init,
        objective=objective,
        optimizer=optax.adamw(rate, b2=0.95, weight_decay=0.0),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )


def guided_sampler(
    heads_of: Callable[[Params], TwoHeads],
    shape: tuple[int, ...],
    steps: int,
    omega: float,
    low: float = 0.0,
    high: float = 1.0,
) -> train.Sampler:
    """Equal steps at a scale of guidance, used between two times."""

    def sample(params: Params, keys: jax.Array, labels: jax.Array) -> jax.Array:
        def u(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            told = Guidance(*(jnp.full_like(t, number) for number in (omega, low, high)))
            return heads_of(params)(x_t, t, s, labels, told)[0]

        jump: FlowMap = conversions.average_velocity_to_flow_map(u)
        return flow_map(jump, initial(keys, shape), grids.linear(steps))

    return train.Sampler(f"flow map {steps}, guidance {omega:g} in {low:g} to {high:g}", steps, sample)
