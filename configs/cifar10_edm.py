"""EDM on CIFAR-10, DDPM++ or NCSN++ (Karras et al. 2022): the diffusion model that CD and ECT start from.

    python main.py --config configs/cifar10_edm.py --workdir runs/cifar10_edm --config.data_dir=DIR

Paper: FID-50k 1.97 unconditional, 1.79 class-conditional at NFE 35, 200 million images, 8 V100 for about 2 days; users
report 2.04 to 2.08 for their own runs. Ours: not run. Differs from the paper: no augmentation pipeline beyond
horizontal flips. With --config.ncsnpp=True it is the teacher of Consistency Models (Song et al. 2023), which saw as
many images at the same values.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, forms, glue, trained_models
from losses import Path, conversions, denoising, edm, edm_weight, times
from losses.types import Loss, Net
from models import SongUNet, ddpmpp, ncsnpp, preconditioning
from samplers import grids, heun
from train import Batch, Context, Experiment, Params, averages, schedules


def get_config() -> ConfigDict:
    """The paper's values; steps are 200 million images at batch 512."""
    config = cifar10.common()
    config.update(
        {
            "ncsnpp": False,
            "batch_size": 512,
            "steps": 390_625,
            "dropout": 0.13,
            "sigma_data": 0.5,
            "mean": -1.2,
            "std": 1.2,
            "learning_rate": 1e-3,
            "ramp_images": 10e6,
            "average_images": 500e3,
            "heun_steps": 18,
        }
    )
    return config


def network(config: ConfigDict) -> SongUNet:
    """The U-Net, which students have too."""
    return cifar10.unet(ncsnpp if config.ncsnpp else ddpmpp, config)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    model = network(config)

    def denoiser(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.edm(glue.bind(model, params, labels, dropout), config.sigma_data)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(edm, denoiser(params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        return denoising(
            denoiser(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.lognormal, mean=config.mean, std=config.std),
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )

    n = config.heun_steps
    rate = schedules.edm_ramp(config.learning_rate, ramp_images=config.ramp_images, batch_size=config.batch_size)
    average = partial(averages.half_life, images=config.average_images, batch_size=config.batch_size)
    samplers = (glue.ode_sampler(f"heun {n}", heun, 2 * n - 1, velocity, images.shape, grids.karras(n), path=edm),)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        optimizer=optax.adam(rate),
        averages={"ema": average},
        **cifar10.fields(config, images, samplers, flip=True),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    model = network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        denoiser = preconditioning.edm(glue.bind(model, params, labels), config.sigma_data)
        return conversions.edm_on_path(denoiser, path)

    images = cifar10.source(config)
    return trained_models.Diffusion(
        on_path,
        forms.EDM,
        images.shape,
        cifar10.classes(config),
        config.sigma_data,
        "ema",
        images=lambda: images,
        built=trained_models.built_of(model),
    )
