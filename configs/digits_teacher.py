"""A TrigFlow diffusion model on scikit-learn's digits: the teacher that the digits students start from or distil.

    python main.py --config configs/digits_teacher.py --workdir runs/digits_teacher

The diffusion model of Lu & Song 2024: EDM in an angle t instead of a noise level, so that its network is that of sCM.
A tenth of the labels is dropped, so that it can guide itself.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, forms, glue, guiding, trained_models
from losses import denoising, edm, edm_weight, times
from losses.types import Loss
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits.py, with EDM's objective."""
    config = digits_students.get_config()
    del config.teacher_run, config.grids
    config.update(
        {
            "mean": 0.3,
            "std": 1.6,
            "label_dropout": 0.1,
            "learning_rate": 2e-3,
            "ddim_steps": (1, 2, 4, 8, 50),
            "sigma_min": 0.02,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any images, with the rest of the experiment from `fields`."""
    denoiser = digits_students.on_path(digits.network(config, source), config, edm)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        labels = guiding.drop_labels(key_labels, batch.get("label"), source.num_classes, config.label_dropout)
        return denoising(
            denoiser(params, labels),
            batch["image"],
            key_loss,
            times=partial(times.lognormal, mean=config.mean, std=config.std),
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )

    samplers = tuple(
        glue.ode_sampler(
            f"ddim {n}",
            partial(ddim, path=edm),
            n,
            denoiser,
            source.shape,
            grids.karras(n + 1, sigma_min=config.sigma_min)[:-1],
            path=edm,
        )
        for n in config.ddim_steps
    )
    return Experiment(
        init=glue.initialiser(digits.network(config, source), source),
        objective=objective,
        **fields(config, source, samplers),
    )


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return diffusion_of(config, data.digits())


def diffusion_of(config: ConfigDict, source: data.Source) -> trained_models.Diffusion:
    """The same on any images."""
    model = digits.network(config, source)
    return trained_models.Diffusion(
        on_path=lambda params, labels, path: digits_students.on_path(model, config, path)(params, labels),
        form=forms.TRIGFLOW,
        shape=source.shape,
        num_classes=source.num_classes,
        sigma_data=config.sigma_data,
        average=f"power_{config.sigma_rels[0]:.2f}",
        guidable=config.label_dropout > 0,
        images=lambda: source,
    )
