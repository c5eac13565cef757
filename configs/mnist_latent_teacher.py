r"""A diffusion model of MNIST's latents on Stable Diffusion's noise schedule: the teacher of LCM, PCM and TCD there.

    python main.py --config configs/mnist_latent_teacher.py --workdir runs/mnist_latent_teacher \
        --config.data_dir=DIR --config.latents=runs/mnist_latents --config.autoencoder_run=runs/mnist_autoencoder

Trained as Rombach et al. 2022 train theirs: all 1,000 timesteps alike, squared error of the noise, a tenth of the
labels dropped. A guided DDIM step takes two calls. The size and the budget are ours, for two CPU cores.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, digits_teacher, glue, guiding, mnist_latents, trained_models
from losses import denoising, paths, snr_weight, times
from losses.types import Loss
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of digits_teacher.py, in latents."""
    config = mnist_latents.budget(digits_teacher.get_config(), steps=4000)
    del config.mean, config.std, config.sigma_min
    config.sampled_guidance = (1.0, 3.0, 7.0)
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = mnist_latents.space(config)
    return experiment(config, space.source, mnist_latents.fields_in(space))


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any examples, with the rest of the experiment from `fields`."""
    guiding.check_null_class(config, *config.sampled_guidance)
    path = paths.scaled_linear_beta()
    model = digits.network(config, source)
    denoiser = digits_students.on_path(model, config, path)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        labels = guiding.drop_labels(key_labels, batch["label"], source.num_classes, config.label_dropout)
        return denoising(
            denoiser(params, labels),
            batch["image"],
            key_loss,
            times=partial(times.discrete, grid=jnp.arange(1000.0)),
            weight=partial(snr_weight, path=path),
            path=path,
        )

    def guided(w: float) -> glue.NetOf:
        return lambda params, labels: guiding.classifier_free(
            lambda labels: denoiser(params, labels), labels, num_classes=source.num_classes, scale=w
        )

    samplers = tuple(
        glue.ode_sampler(
            f"ddim {n}, guidance {w:g}",
            partial(ddim, path=path),
            n if w == 1 else 2 * n,
            guided(w),
            source.shape,
            grids.latent_consistency(n),
            path=path,
        )
        for w, n in itertools.product(config.sampled_guidance, config.ddim_steps)
    )
    return Experiment(init=glue.initialiser(model, source), objective=objective, **fields(config, source, samplers))


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return digits_teacher.diffusion_of(config, mnist_latents.space(config).source)
