"""What the ImageNet configs share: data, sizes, networks, EDM2's optimizer and averages, the teacher.

Not a run. Images are given by --config.data=FOLDER, with a sub-folder for each class, or FILE.npz, or by
--config.tfds=NAME of TensorFlow Datasets prepared in data_dir. A run without them can be built and checked.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Any, TypeVar

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import data
from configs import glue, judged, teachers
from configs.forms import Form
from models.edm2 import EDM2_SIZES
from models.edm2_blocks import projected
from train import Sampler, averages, restore_or_reconstruct, schedules

SHAPE, CLASSES = (64, 64, 3), 1000
DRAWN_CLASSES = 10  # of the grids during training

Model = TypeVar("Model")


def common() -> ConfigDict:
    """Values that all ImageNet runs have; the network's shape is that of ADM at 64 pixels, and of EDM2."""
    return ConfigDict(
        {
            "seed": 0,
            "data": "",
            "tfds": "",
            "data_dir": "~/tensorflow_datasets",
            "reading_processes": 0,
            "channels": 192,
            "multipliers": (1, 2, 3, 4),
            "blocks": 3,
            "channels_per_head": 64,
            "sigma_data": 0.5,
            "bfloat16": True,  # float16 in the papers
            "accumulate": 1,
            "fsdp": 1,
            "averages_on_host": False,
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def preset(sizes: dict[str, dict[str, Any]], size: str) -> dict[str, Any]:
    """The channels and the published values of one of EDM2's sizes.

    Raises:
        ValueError: naming the sizes that there are.
    """
    if size not in sizes:
        raise ValueError(f"size is {size!r}, this run is published in {', '.join(sizes)}")
    return {"channels": EDM2_SIZES[size], **sizes[size]}


# ---- Data ------------------------------------------------------------------------------------------------------------


def images(config: ConfigDict) -> data.Source:
    """ImageNet at 64x64, or, where it is not given or not there, what is known of it.

    Raises:
        ValueError: if what is given has another size or other classes.
    """
    try:
        source = _images(config)
    except FileNotFoundError as error:
        return data.absent("imagenet64", SHAPE, CLASSES, str(error))
    if (source.shape, source.num_classes) != (SHAPE, CLASSES):
        raise ValueError(
            f"{source.name} has images of {source.shape} and {source.num_classes} classes, this run needs {SHAPE} and "
            f"{CLASSES}"
        )
    return source


def _images(config: ConfigDict) -> data.Source:
    if config.tfds:
        return data.tfds_source(config.tfds, split="train", data_dir=config.data_dir, size=SHAPE[0])
    if config.data:
        path = FilePath(config.data)
        return data.npz(path, num_classes=CLASSES) if path.suffix == ".npz" else data.folder(path, size=SHAPE[0])
    raise FileNotFoundError(
        f"give --config.data=FOLDER with a sub-folder of images for each of {CLASSES} classes, or"
        f" --config.data=FILE.npz with image uint8 [n, {SHAPE[0]}, {SHAPE[1]}, {SHAPE[2]}] and label [n],"
        f" or --config.tfds=NAME with --config.data_dir=DIR"
    )


# ---- Network and optimizer -------------------------------------------------------------------------------------------


def network(make: Callable[..., Model], config: ConfigDict, **options: Any) -> Model:
    """models.adm, edm2 or edm2_scm at the config's size."""
    return make(
        channels=config.channels,
        multipliers=tuple(config.multipliers),  # run.json makes lists of tuples
        blocks=config.blocks,
        channels_per_head=config.channels_per_head,
        num_classes=CLASSES,
        dropout=config.dropout,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
        **options,
    )


def edm2_optimizer(config: ConfigDict, *, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam with EDM2's inverse square root schedule, then its forced weight normalisation.

    EDM2's code sets gradients that are not finite to 0, where this trainer stops.
    """
    rate = schedules.edm2_inverse_sqrt(
        config.learning_rate,
        reference_steps=config.reference_steps,
        ramp_images=config.ramp_images,
        batch_size=config.batch_size,
    )
    return optax.chain(optax.adam(rate, b2=0.99, eps=eps), projected())


# ---- Experiment ------------------------------------------------------------------------------------------------------


def power_averages(config: ConfigDict) -> dict[str, Any]:
    """The fields of an Experiment for config.sigma_rels: averages, their snapshots, and any length made of these."""
    lengths = {power_name(s): s for s in config.sigma_rels}
    return {
        "averages": {name: partial(averages.power, sigma_rel=s) for name, s in lengths.items()},
        "snapshot_every": config.snapshot_every,
        "restore": partial(restore_or_reconstruct, sigma_rels=lengths),
    }


def power_name(sigma_rel: float) -> str:
    """The name of the power-function average of this length."""
    return f"power_{sigma_rel:g}"


def teacher(
    config: ConfigDict, source: data.Source, *, form: Form | None = None, guidance: float = 1.0, starts: bool = False
) -> teachers.Teacher:
    """The diffusion model in config.teacher_run, checked against this run."""
    return teachers.teacher(
        config.teacher_run,
        shape=source.shape,
        num_classes=source.num_classes,
        sigma_data=config.sigma_data,
        form=form,
        guidance=guidance,
        starts=starts,
    )


def fields(
    config: ConfigDict, source: data.Source, samplers: tuple[Sampler, ...], *, average: str, flip: bool = False
) -> dict[str, Any]:
    """The fields of an Experiment that the configs on images have in common."""
    return {
        **shared_fields(config, lambda: source, samplers, average=average),
        **glue.image_data(
            source,
            seed=config.seed,
            batch_size=config.batch_size,
            flip=flip,
            num_processes=config.reading_processes,
        ),
    }


def shared_fields(
    config: ConfigDict, images: judged.Images, samplers: tuple[Sampler, ...], *, average: str
) -> dict[str, Any]:
    """Those that do not say what is trained on."""
    every = config.checkpoint_every
    grids = glue.grids_of_samples(samplers[0], every=every, average=average, num_classes=DRAWN_CLASSES)
    return {
        "samplers": samplers,
        "steps": config.steps,
        "accumulate": config.accumulate,
        "fsdp": config.fsdp,
        "averages_on_host": config.averages_on_host,
        "log_every": config.log_every,
        "checkpoint_every": config.checkpoint_every,
        **judged.fields(config, images, samplers, average=average, num_classes=CLASSES, periodic=(grids,)),
    }
