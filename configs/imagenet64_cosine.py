"""Diffusion on ImageNet-64 by UViT on the cosine path: what multistep consistency models start from and distil.

    python main.py --config configs/imagenet64_cosine.py --workdir runs/imagenet64_cosine --config.data=FOLDER

Paper (Heek et al. 2024): FID-50k 1.5 in 512 steps of aDDIM with this small UViT of 394 M parameters, 1.4 with the large
one of 1.23 B. Hardware: not said. Ours: not run. There is no official code; how much of models/uvit.py is a reading is
told there. Optimizer, average, number of steps and range of log-SNR are those of simple diffusion's own UViT
(Hoogeboom et al. 2023; from memory and at second hand, unverified).

Differs: the cosine schedule itself, where the paper lowers the log-SNR by up to 1.4 towards t = 0 (noise resolution 32
to 64), and a network that sees 1000 t, finite at both ends, where simple diffusion's sees the log-SNR (unverified).
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import forms, glue, guiding, imagenet, trained_models
from losses import Path, conversions, cosine, denoising, times, v_weight
from losses.types import Loss, Net
from models import preconditioning
from models.uvit import UViT
from samplers import addim, grids
from train import Batch, Context, Experiment, Params, averages, schedules


def common() -> ConfigDict:
    """Values that the students have too: the small network's shape, for v-prediction."""
    config = imagenet.common()
    del config.channels_per_head
    config.update(
        {
            "channels": 256,
            "multipliers": (1, 2),
            "blocks": 3,
            "width": 1024,
            "depth": 16,
            "heads": 4,
            "dropout": 0.2,
            "sigma_data": 1.0,  # v mixes data with noise of unit size, whatever the size of the data
            "batch_size": 2048,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
        }
    )
    return config


def get_config() -> ConfigDict:
    """The paper's values, and simple diffusion's where it gives none."""
    config = common()
    config.update(
        {
            "steps": 500_000,
            "log_snr_max": 15.0,  # of the times trained on, and -15 at the other end
            "label_dropout": 0.0,  # share of images shown without their class, which guidance needs
            "warmup_steps": 10_000,
            "adam_b2": 0.99,
            "adam_eps": 1e-12,
            "gradient_norm": 1.0,
            "addim_steps": (64, 512),  # pictures during training take the first; the second is the paper's
        }
    )
    return config


def network(config: ConfigDict) -> UViT:
    """The network, which students have too; it sees 1000 t of the path, made of the angle pi t / 2."""
    return UViT(
        channels=config.channels,
        multipliers=tuple(config.multipliers),  # run.json makes lists of tuples
        blocks=config.blocks,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        num_classes=imagenet.CLASSES,
        dropout=config.dropout,
        time_scale=2000 / math.pi,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def on_path(config: ConfigDict, path: Path) -> Callable[..., Net]:
    """(params, labels[, dropout key]) -> denoiser, or multistep consistency function, on that path.

    The network predicts v = alpha z - sigma x, so x = alpha x_t - sigma v, which is TrigFlow's form at unit size.
    """
    model = network(config)

    def net_of(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        denoiser = preconditioning.trigflow(glue.bind(model, params, labels, dropout), config.sigma_data)
        return conversions.trigflow_on_path(denoiser, path, sigma_data=config.sigma_data)

    return net_of


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    denoiser = on_path(config, cosine)
    first = 2 / math.pi * math.atan(math.exp(-config.log_snr_max / 2))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout, key_labels = jax.random.split(key, 3)
        labels = guiding.drop_labels(key_labels, batch.get("label"), source.num_classes, config.label_dropout)
        losses, metrics = denoising(
            denoiser(params, labels, key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.uniform, low=first, high=1 - first),
            weight=partial(v_weight, path=cosine),
            path=cosine,
        )
        # The mean over elements: gradients are clipped by their norm.
        return losses / int(np.prod(source.shape)), metrics

    rate = schedules.warmup_constant(config.learning_rate, steps=config.warmup_steps)
    solver = partial(addim, path=cosine)
    samplers = tuple(
        glue.ode_sampler(f"addim {n}", solver, n, denoiser, source.shape, grids.linear(n), path=cosine)
        for n in config.addim_steps
    )
    return Experiment(
        init=glue.initialiser(network(config), source),
        objective=objective,
        optimizer=optax.chain(
            optax.clip_by_global_norm(config.gradient_norm),
            optax.adam(rate, b2=config.adam_b2, eps=config.adam_eps),
        ),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet.fields(config, source, samplers, average="ema"),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return trained_models.Diffusion(
        on_path=lambda params, labels, path: on_path(config, path)(params, labels),
        form=forms.TRIGFLOW,
        shape=imagenet.SHAPE,
        num_classes=imagenet.CLASSES,
        sigma_data=config.sigma_data,
        average="ema",
        guidable=config.label_dropout > 0,
    )
