"""What the runs on latents of ImageNet at 256 x 256 share: 32 x 32 x 4 numbers an image, 1,000 classes, the judge.

Not a run. The latents are those of Stable Diffusion's autoencoder; samples are decoded, drawn and judged in pixels.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import glue, judged, latents
from models import dit
from train import Sampler

SHAPE, CLASSES = (32, 32, 4), 1000


def transformer(size: str) -> dict[str, int]:
    """The config values of SiT's network of a size.

    Raises:
        ValueError: naming the sizes that there are.
    """
    if size not in dit.SIZES:
        raise ValueError(f"size is {size!r}, it must be one of {', '.join(dit.SIZES)}")
    return {"patch": 2, **dit.SIZES[size]._asdict()}


def space(config: ConfigDict) -> latents.Space:
    """The latents in the folder config.latents, and the decoder of config.autoencoder_run."""
    return latents.space(config.latents, config.autoencoder_run, shape=SHAPE, num_classes=CLASSES)


def fields(
    config: ConfigDict, space: latents.Space, samplers: tuple[Sampler, ...], *, drawn: int = 0
) -> dict[str, Any]:
    """The fields of an Experiment that the runs have in common; the sampler of number `drawn` makes the pictures."""
    images = latents.decoded(samplers, space)
    classes = min(space.source.num_classes, 10)
    picture = glue.grids_of_samples(images[drawn], every=config.checkpoint_every, average="ema", num_classes=classes)
    return {
        "samplers": images,
        "steps": config.steps,
        "accumulate": config.accumulate,
        "fsdp": config.fsdp,
        "tensor": config.get("tensor", 1),
        "averages_on_host": config.get("averages_on_host", False),
        "log_every": config.log_every,
        "checkpoint_every": config.checkpoint_every,
        **judged.fields(
            config,
            space.images,
            images,
            average="ema",
            num_classes=space.source.num_classes,
            periodic=(picture,),
        ),
        **latents.latent_data(space, seed=config.seed, batch_size=config.batch_size),
    }
