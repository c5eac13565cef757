"""What the CIFAR-10 configs share: the data, the U-Nets' common values, the teacher, the grid drawn during training.

Not a run. Data: TensorFlow Datasets' `cifar10`, prepared as ArrayRecord in `data_dir`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import glue, judged, teachers
from models import SongUNet
from train import Sampler

SHAPE, CLASSES = (32, 32, 3), 10


def common() -> ConfigDict:
    """Values that all CIFAR-10 runs have; the network is EDM's U-Net of 128 channels."""
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "class_conditional": False,
            "channels": 128,
            "multipliers": (2, 2, 2),
            "blocks": 4,
            "bfloat16": False,
            "accumulate": 1,
            **judged.values("pixels"),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def source(config: ConfigDict) -> data.Source:
    """The training images with their labels, or, where they are not prepared, what is known of them."""
    try:
        return data.tfds_source("cifar10", split="train", data_dir=config.data_dir)
    except FileNotFoundError as error:
        return data.absent("cifar10", SHAPE, CLASSES, f"{error}; then give --config.data_dir=DIR")


def classes(config: ConfigDict) -> int:
    """Classes that the run tells apart, 0 for none."""
    return CLASSES if config.class_conditional else 0


def unet(make: Callable[..., SongUNet], config: ConfigDict, **options: Any) -> SongUNet:
    """models.ddpmpp or models.ncsnpp at the config's size."""
    return make(
        channels=config.channels,
        multipliers=tuple(config.multipliers),  # run.json makes lists of tuples
        blocks=config.blocks,
        num_classes=classes(config),
        dropout=config.dropout,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
        **options,
    )


def teacher(config: ConfigDict, images: data.Source, *, starts: bool = False) -> teachers.Teacher:
    """The diffusion model in config.teacher_run, checked against this run."""
    return teachers.teacher(
        config.teacher_run,
        shape=images.shape,
        num_classes=classes(config),
        sigma_data=config.sigma_data,
        starts=starts,
    )


def fields(config: ConfigDict, images: data.Source, samplers: tuple[Sampler, ...], *, flip: bool) -> dict[str, Any]:
    """The fields of an Experiment that the configs have in common."""
    grids = glue.grids_of_samples(
        samplers[0], every=config.checkpoint_every, average="ema", num_classes=classes(config)
    )
    return {
        "samplers": samplers,
        "steps": config.steps,
        "accumulate": config.accumulate,
        "log_every": config.log_every,
        "checkpoint_every": config.checkpoint_every,
        **judged.fields(
            config, lambda: images, samplers, average="ema", num_classes=classes(config), periodic=(grids,)
        ),
        **glue.image_data(
            images,
            seed=config.seed,
            batch_size=config.batch_size,
            flip=flip,
            num_classes=classes(config),
            in_memory=True,
        ),
    }
