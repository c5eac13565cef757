r"""Trajectory consistency distillation on MNIST's latents (Zheng et al. 2024).

    python main.py --config configs/mnist_latent_tcd.py --workdir runs/mnist_latent_tcd \
        --config.data_dir=DIR --config.latents=runs/mnist_latents \
        --config.autoencoder_run=runs/mnist_autoencoder --config.teacher_run=runs/mnist_latent_teacher

The method of `digits_tcd`, from a teacher that is guided by one scale.
"""

from ml_collections import ConfigDict

from configs import digits_tcd, mnist_latents
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_tcd.py, with guidance."""
    config = mnist_latents.budget(digits_tcd.get_config())
    config.guidance = 3.0
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = mnist_latents.space(config)
    return digits_tcd.experiment(config, space.source, mnist_latents.fields_in(space))
