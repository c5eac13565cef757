"""TrigFlow diffusion on CIFAR-10 (Lu & Song 2024): EDM in an angle, the model that sCM starts from and distils.

    python main.py --config configs/cifar10_trigflow.py --workdir runs/cifar10_trigflow --config.data_dir=DIR

Paper: gives no FID of this model; EDM, which it is up to the reading of time, has 1.97 at NFE 35. Hardware: not said.
Ours: not run. There is no official code: noise levels, optimizer and length are from memory (unverified). The network
is DDPM++ with positional embedding of the angle; the weight of each noise level is learned beside it.
"""

from functools import partial

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import cifar10, forms, glue, trained_models
from losses import Path, adaptive, conversions, denoising, scaled, times, trig, v_weight
from losses.types import Loss, Net
from models import SongUNet, ddpmpp, preconditioning
from samplers import grids, heun
from train import Batch, Context, Experiment, Params, averages, schedules


def get_config() -> ConfigDict:
    """The paper's values as far as they are known, EDM's otherwise."""
    config = cifar10.common()
    config.update(
        {
            "double_norm": False,  # the paper replaces AdaGN by it, which DDPM++ does not have
            "batch_size": 512,
            "steps": 400_000,
            "dropout": 0.13,
            "sigma_data": 0.5,
            "mean": -1.0,
            "std": 1.4,
            "learning_rate": 1e-3,
            "ramp_images": 10e6,
            "average_images": 500e3,
            "heun_steps": 18,
        }
    )
    return config


def network(config: ConfigDict) -> SongUNet:
    """The U-Net, which sCM has too; it takes the angle as it is."""
    return cifar10.unet(ddpmpp, config, double_norm=config.double_norm)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    model = network(config)
    path = scaled(trig, config.sigma_data)

    def denoiser(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.trigflow(glue.bind(model, params["network"], labels, dropout), config.sigma_data)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(path, denoiser(params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        losses, metrics = denoising(
            denoiser(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            weight=partial(v_weight, path=trig),  # |sigma_data F - v|^2, since D = cos(t) x_t - sin(t) sigma_data F
            path=path,
        )
        d = int(np.prod(images.shape))
        return adaptive(losses, glue.log_weight(params)(metrics["t"]), elements=d), {**metrics, "distance": losses / d}

    n = config.heun_steps
    angles = np.arctan(grids.karras(n) / config.sigma_data)
    rate = schedules.edm_ramp(config.learning_rate, ramp_images=config.ramp_images, batch_size=config.batch_size)
    average = partial(averages.half_life, images=config.average_images, batch_size=config.batch_size)
    samplers = (glue.ode_sampler(f"heun {n}", heun, 2 * n - 1, velocity, images.shape, angles, path=path),)
    return Experiment(
        init=glue.weighted_initialiser(model, images),
        objective=objective,
        optimizer=optax.adam(rate),
        averages={"ema": average},
        **cifar10.fields(config, images, samplers, flip=True),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    model = network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        denoiser = preconditioning.trigflow(glue.bind(model, params, labels), config.sigma_data)
        return conversions.trigflow_on_path(denoiser, path, sigma_data=config.sigma_data)

    shape, classes = cifar10.source(config).shape, cifar10.classes(config)
    return trained_models.Diffusion(
        on_path,
        forms.TRIGFLOW,
        shape,
        classes,
        config.sigma_data,
        average="ema",
        network=lambda params: params["network"],
        built=trained_models.built_of(model),
    )
