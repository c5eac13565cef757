"""TrigFlow diffusion on ImageNet-64 (Lu & Song 2024): what sCM starts from and distils, in four sizes.

    python main.py --config configs/imagenet64_trigflow.py --workdir runs/imagenet64_trigflow --config.data=FOLDER
    python main.py --config configs/imagenet64_trigflow.py:XL --workdir runs/imagenet64_trigflow_xl --config.data=FOLDER

Paper: FID-50k 1.70, 1.55, 1.44, 1.38 in sizes S, M, L, XL at NFE 63. Hardware: not said. Ours: not run. The network is
EDM2's with positional embedding of the angle and double normalisation; there is no official code, and how the latter
meets EDM2's blocks is our reading. The ramp of the learning rate is EDM2's (unverified).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import data
from configs import forms, glue, guiding, imagenet, trained_models
from losses import Path, adaptive, conversions, denoising, scaled, times, trig, v_weight
from losses.types import Loss, Net
from models import preconditioning
from models.edm2 import EDM2UNet, edm2_scm
from samplers import grids, heun
from train import Batch, Context, Experiment, Params

# The paper's table 3; the last column is the average that samples and students take.
SIZES = {
    "S": {"learning_rate": 0.010, "dropout": 0.0, "steps": 1_048_000, "sigma_rels": (0.075, 0.05, 0.10)},
    "M": {"learning_rate": 0.009, "dropout": 0.1, "steps": 1_486_000, "sigma_rels": (0.06, 0.05, 0.10)},
    "L": {"learning_rate": 0.008, "dropout": 0.1, "steps": 761_000, "sigma_rels": (0.04, 0.05, 0.10)},
    "XL": {"learning_rate": 0.007, "dropout": 0.1, "steps": 540_000, "sigma_rels": (0.04, 0.05, 0.10)},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size."""
    config = imagenet.common()
    config.update(imagenet.preset(SIZES, size))
    config.update(
        {
            "remat": "none",
            "batch_size": 2048,
            "mean": -0.8,
            "std": 1.6,
            "label_dropout": 0.0,  # share of images shown without their class, which guidance needs
            "guidance": 1.0,
            "reference_steps": 35_000,
            "ramp_images": 10e6,
            "adam_eps": 1e-11,
            "snapshot_every": 4_096,
            "heun_steps": 32,
        }
    )
    return config


def network(config: ConfigDict) -> EDM2UNet:
    """The U-Net, which sCM has too but for its dropout."""
    return imagenet.network(edm2_scm, config, dropout_resolutions=None, remat=glue.remat(config.remat))


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    return experiment(config, source, partial(imagenet.fields, config, source))


def experiment(config: ConfigDict, source: data.Source, fields: Callable[..., dict[str, Any]]) -> Experiment:
    """The same on any examples, images or latents, the rest of the experiment being `fields(samplers, average=)`."""
    guiding.check_null_class(config, config.guidance)
    model = network(config)
    path = scaled(trig, config.sigma_data)

    def denoiser(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.trigflow(glue.bind(model, params["network"], labels, dropout), config.sigma_data)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        guided = guiding.classifier_free(
            partial(denoiser, params), labels, num_classes=source.num_classes, scale=config.guidance
        )
        return conversions.denoiser_to_velocity(path, guided)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout, key_labels = jax.random.split(key, 3)
        labels = guiding.drop_labels(key_labels, batch.get("label"), source.num_classes, config.label_dropout)
        losses, metrics = denoising(
            denoiser(params, labels, key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            weight=partial(v_weight, path=trig),  # |sigma_data F - v|^2, since D = cos(t) x_t - sin(t) sigma_data F
            path=path,
        )
        d = int(np.prod(source.shape))
        return adaptive(losses, glue.log_weight(params)(metrics["t"]), elements=d), {**metrics, "distance": losses / d}

    n = config.heun_steps
    nfe = (2 * n - 1) * (1 if config.guidance == 1 else 2)
    angles = np.arctan(grids.karras(n) / config.sigma_data)
    samplers = (glue.ode_sampler(f"heun {n}", heun, nfe, velocity, source.shape, angles, path=path),)
    return Experiment(
        init=glue.weighted_initialiser(model, source),
        objective=objective,
        optimizer=imagenet.edm2_optimizer(config, eps=config.adam_eps),
        **imagenet.power_averages(config),
        **fields(samplers, average=imagenet.power_name(config.sigma_rels[0])),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return diffusion_of(config, imagenet.SHAPE)


def diffusion_of(config: ConfigDict, shape: tuple[int, ...]) -> trained_models.Diffusion:
    """The same on examples of any shape, images or latents."""
    model = network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        denoiser = preconditioning.trigflow(glue.bind(model, params, labels), config.sigma_data)
        return conversions.trigflow_on_path(denoiser, path, sigma_data=config.sigma_data)

    return trained_models.Diffusion(
        on_path,
        forms.TRIGFLOW,
        shape,
        imagenet.CLASSES,
        config.sigma_data,
        average=imagenet.power_name(config.sigma_rels[0]),
        guidable=config.label_dropout > 0,
        network=lambda params: params["network"],
        built=trained_models.built_of(model),
    )
