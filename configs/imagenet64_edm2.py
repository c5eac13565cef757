"""EDM2 on ImageNet-64 (Karras et al. 2024): the diffusion model that ECT and SCT start from, in four sizes.

    python main.py --config configs/imagenet64_edm2.py --workdir runs/imagenet64_edm2 --config.data=FOLDER
    python main.py --config configs/imagenet64_edm2.py:XL --workdir runs/imagenet64_edm2_xl --config.data=FOLDER

Paper: FID-50k 1.58, 1.43, 1.33, 1.33 in sizes S, M, L, XL at NFE 63, on A100s whose number was not at hand. Ours: not
run. Differs: the layer of the learned weight is a plain one, bfloat16 where the official code has float16, and
gradients that are not finite stop the run.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import forms, glue, imagenet, trained_models
from losses import Path, adaptive, conversions, denoising, edm, edm_weight, times
from losses.types import Loss, Net
from models import preconditioning
from models.edm2 import EDM2UNet, edm2
from samplers import grids, heun
from train import Batch, Context, Experiment, Params

# The official code's presets; a step is 2,048 images.
SIZES = {
    "S": {"learning_rate": 0.010, "dropout": 0.0, "steps": 524_288},
    "M": {"learning_rate": 0.009, "dropout": 0.1, "steps": 1_048_576},
    "L": {"learning_rate": 0.008, "dropout": 0.1, "steps": 524_288},
    "XL": {"learning_rate": 0.007, "dropout": 0.1, "steps": 327_680},
}


def get_config(size: str = "S") -> ConfigDict:
    """The official code's values for a size."""
    config = imagenet.common()
    config.update(imagenet.preset(SIZES, size))
    config.update(
        {
            "batch_size": 2048,
            "mean": -0.8,
            "std": 1.6,
            "reference_steps": 35_000,
            "ramp_images": 10e6,
            "sigma_rels": (0.075, 0.05, 0.10),  # the first is the published length of S; the others are the paper's
            "snapshot_every": 4_096,
            "heun_steps": 32,
        }
    )
    return config


def network(config: ConfigDict) -> EDM2UNet:
    """The U-Net, which students have too."""
    return imagenet.network(edm2, config)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    model = network(config)

    def denoiser(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.edm(glue.bind(model, params["network"], labels, dropout), config.sigma_data)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(edm, denoiser(params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        losses, metrics = denoising(
            denoiser(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.lognormal, mean=config.mean, std=config.std),
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )
        d = int(np.prod(source.shape))
        log_weight = glue.log_weight(params)(jnp.log(metrics["t"]) / 4)
        return d * adaptive(losses, log_weight, elements=d), {**metrics, "distance": losses / d}

    n = config.heun_steps
    samplers = (glue.ode_sampler(f"heun {n}", heun, 2 * n - 1, velocity, source.shape, grids.karras(n), path=edm),)
    return Experiment(
        init=glue.weighted_initialiser(model, source),
        objective=objective,
        optimizer=imagenet.edm2_optimizer(config),
        **imagenet.power_averages(config),
        **imagenet.fields(config, source, samplers, average=imagenet.power_name(config.sigma_rels[0])),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    model = network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        denoiser = preconditioning.edm(glue.bind(model, params, labels), config.sigma_data)
        return conversions.edm_on_path(denoiser, path)

    average = imagenet.power_name(config.sigma_rels[0])
    return trained_models.Diffusion(
        on_path,
        forms.EDM,
        imagenet.SHAPE,
        imagenet.CLASSES,
        config.sigma_data,
        average,
        network=lambda params: params["network"],
        built=trained_models.built_of(model),
    )
