r"""Latent consistency distillation on MNIST's latents (Luo et al. 2023), at any guidance scale.

    python main.py --config configs/mnist_latent_lcm.py --workdir runs/mnist_latent_lcm \
        --config.data_dir=DIR --config.latents=runs/mnist_latents \
        --config.autoencoder_run=runs/mnist_autoencoder --config.teacher_run=runs/mnist_latent_teacher

The method of `digits_lcm`. Scales are ours, 1 is none: the paper's 2 to 14 are 3 to 15 here.
"""

from ml_collections import ConfigDict

from configs import digits_lcm, mnist_latents
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_lcm.py, with a range of scales that guide."""
    config = mnist_latents.budget(digits_lcm.get_config())
    config.update({"guidance_range": (1.0, 8.0), "sampled_guidance": (1.0, 3.0, 7.0)})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = mnist_latents.space(config)
    return digits_lcm.experiment(config, space.source, mnist_latents.fields_in(space))
