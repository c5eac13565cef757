r"""A KL autoencoder on CIFAR-10 (Rombach et al. 2022): 32 x 32 x 3 pixels to latents of 16 x 16 x 4.

    python main.py --config configs/cifar10_autoencoder.py --workdir runs/cifar10_autoencoder --config.data_dir=DIR
    python main.py --workdir runs/cifar10_autoencoder --mode=encode --out=runs/cifar10_latents

The paper has none for CIFAR-10. Its weights, 1e-6 of the divergence and 0.5 of the discriminator, are taken over and
so are Adam's betas; the sizes are ours. Ours: not run. As published it also takes a perceptual distance and a
discriminator: --config.lpips=FILE.npz --config.adversarial_weight=0.5.
"""

from functools import partial

from ml_collections import ConfigDict

import data
from configs import cifar10, latents, mnist_autoencoder
from train import Experiment


def get_config() -> ConfigDict:
    """A network for one accelerator."""
    config = mnist_autoencoder.get_config()
    del config.pad
    config.update(
        {
            "flip": True,
            "steps": 100_000,
            "batch_size": 128,
            "channels": 64,
            "multipliers": (1, 2),
            "blocks": 2,
            "groups": 32,
            "attention": True,
            "adversarial_start": 50_000,
            "learning_rate": 1e-4,
            "betas": (0.5, 0.9),
            "warmup_steps": 1000,
            "average_decay": 0.999,
            "judged_samples": 10_000,
            "log_every": 100,
            "report_every": 5_000,
            "checkpoint_every": 5_000,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return mnist_autoencoder.experiment(config, cifar10.source(config), partial(held_out, config))


def held_out(config: ConfigDict) -> data.Source:
    """The test images."""
    return data.tfds_source("cifar10", split="test", data_dir=config.data_dir)


def autoencoder(config: ConfigDict) -> latents.Autoencoder:
    """What this run is to models of its latents."""
    return mnist_autoencoder.autoencoder_of(config, partial(cifar10.source, config), channels=cifar10.SHAPE[-1])
