"""What the runs on MNIST's latents share: 8 x 8 x 4 numbers for 32 x 32 pixels; samples are decoded and then judged.

Not a run. `mnist_autoencoder` makes the latents; `mnist_latent_teacher` is the diffusion model that others distil, on
Stable Diffusion's noise schedule.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

from ml_collections import ConfigDict

import eval as evaluation
from configs import digits, judges, latents, mnist_autoencoder
from train import Sampler

SHAPE, CLASSES = (8, 8, 4), 10


def budget(config: ConfigDict, *, steps: int = 1500) -> ConfigDict:
    """A digits config on MNIST's latents: 16 tokens of 2 x 2, smaller batches; the steps are those of a student."""
    config.update(
        {
            "data_dir": "~/tensorflow_datasets",
            "latents": "",
            "autoencoder_run": "",
            "pad": 2,  # black pixels on every side, as the autoencoder saw them
            "patch": 2,
            "steps": steps,
            "batch_size": 64,
            "sigma_data": 0.5,
            "snapshot_every": 0,
            "judged_samples": 2000,
        }
    )
    return config


def space(config: ConfigDict) -> latents.Space:
    """The latents in the folder config.latents, and the decoder of config.autoencoder_run."""
    return latents.space(config.latents, config.autoencoder_run, shape=SHAPE, num_classes=CLASSES)


def fields_in(space: latents.Space) -> digits.Fields:
    """The fields of an Experiment beside its objective, as `digits.fields`, for models of these latents."""

    def fields(config: ConfigDict, source: Any, samplers: tuple[Sampler, ...]) -> dict[str, Any]:
        return {
            **digits.training(config, source, latents.decoded(samplers, space)),
            **latents.latent_data(space, seed=config.seed, batch_size=config.batch_size),
            "judge": judge(config),
        }

    return fields


def judge(config: ConfigDict) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """As `mnist.fields` has it, on images with a border; in the classifier's features alone."""
    source = partial(mnist_autoencoder.source, config)

    @cache
    def judge() -> Callable[[Iterable[Any]], list[evaluation.Row]]:
        images = source("train")
        held_out = source("test")
        return judges.judge_with_classifier(
            images, training=images, held_out=held_out, limit=10_000, pixels=False, features=True
        )

    return lambda batches: judge()(batches)
