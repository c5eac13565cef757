"""EDM on ImageNet-64, ADM's U-Net (Karras et al. 2022): the diffusion model that imagenet64_cd.py distils.

    python main.py --config configs/imagenet64_edm.py --workdir runs/imagenet64_edm --config.data=FOLDER

Paper: FID-50k 1.36 at 511 network calls of the stochastic sampler, 2,500 million images, 32 A100 for about 13 days. The
79 calls of Heun's method gave 2.44 with the model that the authors of Consistency Models trained. Ours: not run.
Differs: bfloat16 where the paper has float16 with loss scaling, and gradients that are not finite stop the run where
the official code sets them to 0 or 1e5.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import forms, glue, imagenet, trained_models
from losses import Path, conversions, denoising, edm, edm_weight, times
from losses.types import Loss, Net
from models import preconditioning
from models.adm import ADMUNet, adm
from samplers import edm_stochastic, grids, heun
from samplers.noise import initial
from train import Batch, Context, Experiment, Params, Sampler, averages, schedules


def get_config() -> ConfigDict:
    """The paper's values; steps are 2,500 million images at batch 4,096."""
    config = imagenet.common()
    config.update(
        {
            "batch_size": 4096,
            "steps": 610_352,
            "dropout": 0.10,
            "mean": -1.2,
            "std": 1.2,
            "learning_rate": 1e-4,
            "ramp_images": 10e6,
            "average_images": 50e6,
            "heun_steps": 40,
            "stochastic_steps": 256,  # with the published churn, the sampler's default
        }
    )
    return config


def network(config: ConfigDict) -> ADMUNet:
    """The U-Net, which students have too."""
    return imagenet.network(adm, config)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    model = network(config)

    def denoiser(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.edm(glue.bind(model, params, labels, dropout), config.sigma_data)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(edm, denoiser(params, labels))

    def stochastic(params: Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        levels = grids.karras(config.stochastic_steps)
        return edm_stochastic(denoiser(params, labels), levels[0] * initial(keys, source.shape), levels, keys)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        return denoising(
            denoiser(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.lognormal, mean=config.mean, std=config.std),
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )

    n, m = config.heun_steps, config.stochastic_steps
    rate = schedules.edm_ramp(config.learning_rate, ramp_images=config.ramp_images, batch_size=config.batch_size)
    average = partial(averages.half_life, images=config.average_images, batch_size=config.batch_size)
    samplers = (
        glue.ode_sampler(f"heun {n}", heun, 2 * n - 1, velocity, source.shape, grids.karras(n), path=edm),
        Sampler(f"stochastic {m}", 2 * m - 1, stochastic),
    )
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        optimizer=optax.adam(rate),
        averages={"ema": average},
        **imagenet.fields(config, source, samplers, average="ema"),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    model = network(config)

    def on_path(params: Params, labels: jax.Array | None, path: Path) -> Net:
        denoiser = preconditioning.edm(glue.bind(model, params, labels), config.sigma_data)
        return conversions.edm_on_path(denoiser, path)

    return trained_models.Diffusion(
        on_path,
        forms.EDM,
        imagenet.SHAPE,
        imagenet.CLASSES,
        config.sigma_data,
        "ema",
        built=trained_models.built_of(model),
    )
