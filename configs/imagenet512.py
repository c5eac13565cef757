"""What the runs on latents of ImageNet at 512 x 512 share: 64 x 64 x 4 numbers an image, 1,000 classes.

Not a run. The latents are those of Stable Diffusion's autoencoder with mean 0 and standard deviation 0.5 in each
channel, as configs/diffusers_autoencoder.py:edm2 sees them. Samples are decoded and drawn.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import imagenet, latents
from train import Sampler

SHAPE = (64, 64, 4)


def on_latents(config: ConfigDict) -> ConfigDict:
    """A config of ImageNet-64 with latents in place of images."""
    for name in ("data", "tfds", "data_dir", "reading_processes"):
        del config[name]
    config.update({"latents": "", "autoencoder_run": ""})
    return config


def space(config: ConfigDict) -> latents.Space:
    """The latents in the folder config.latents, and the decoder of config.autoencoder_run."""
    return latents.space(config.latents, config.autoencoder_run, shape=SHAPE, num_classes=imagenet.CLASSES)


def fields(config: ConfigDict, space: latents.Space, samplers: tuple[Sampler, ...], *, average: str) -> dict[str, Any]:
    """The fields of an Experiment that these runs have in common."""
    return {
        **imagenet.shared_fields(config, space.images, latents.decoded(samplers, space), average=average),
        **latents.latent_data(space, seed=config.seed, batch_size=config.batch_size),
    }
