r"""ECT on images of your own: a folder, with or without a sub-folder for each class, or an npz file.

    python main.py --config configs/own_images.py --workdir runs/own_images --config.path=FOLDER --config.size=32
    python main.py --config configs/own_images.py --workdir runs/own_images --config.path=FILE.npz

It starts from random weights, or with --config.teacher_run=RUN from a diffusion model, a flow or a consistency model of
the same network, such as a converted one.

A starting point and not a published run; numbers: not run. Images of more than 32x32x3 are not judged in pixels: give
--config.judged_features='("inception",)', as configs/judged.py says.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import data
from configs import glue, judged, judges, teachers
from losses import consistency, curricula, edm, pairs, pseudo_huber
from losses.types import Loss, Net
from models import ddpmpp, preconditioning
from train import Batch, Context, Experiment, Params, averages

LARGEST_IN_MEMORY = 2**31  # bytes


def get_config() -> ConfigDict:
    """ECT's CIFAR-10 values at a batch for one accelerator."""
    return ConfigDict(
        {
            "path": "",
            "teacher_run": "",  # a model to start from, such as a converted one of this network
            "size": 0,  # pixels a side after a centre crop; 0 takes the files as they are
            "skip_unreadable": 0,  # files that may be broken: the next one takes their place
            "flip": True,
            "seed": 0,
            "batch_size": 128,
            "steps": 200_000,
            "accumulate": 1,
            # network
            "channels": 128,
            "multipliers": (2, 2, 2),
            "blocks": 4,
            "attention_resolutions": (16,),
            "dropout": 0.2,
            "bfloat16": False,
            "sigma_data": 0.5,
            # noise levels and their pairs
            "mean": -1.1,
            "std": 2.0,
            "q": 2.0,
            "stages": 8,
            "huber_c": 0.06,
            # optimizer
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            # sampling and judging
            "grids": ((80.0,), (80.0, 0.821)),
            **judged.values("pixels"),
            "judged_samples": 5_000,
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def source(config: ConfigDict) -> data.Source:
    """The images at config.path, in memory if they fit."""
    if not config.path:
        raise ValueError("give --config.path: a folder of images or an npz file")
    path = Path(config.path).expanduser()
    if path.suffix == ".npz":
        return data.npz(path)
    images = data.skip_unreadable(data.folder(path, size=config.size or None), at_most=config.skip_unreadable)
    fits = len(images) * int(np.prod(images.shape)) <= LARGEST_IN_MEMORY
    return data.cached(images, limit_bytes=LARGEST_IN_MEMORY) if fits else images


def in_what_is_possible(config: ConfigDict, images: data.Source) -> ConfigDict:
    """The config without a judge in pixels where images are too large for it, unless judgements are asked for."""
    large = np.prod(images.shape) > judges.LARGEST_IN_PIXELS
    if large and tuple(config.judged_features) == judged.PIXELS and not config.judged_every:
        config = config.copy_and_resolve_references()
        config.judged_features = ()
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = source(config)
    network = ddpmpp(
        channels=config.channels,
        multipliers=config.multipliers,
        blocks=config.blocks,
        attention_resolutions=config.attention_resolutions,
        num_classes=images.num_classes,
        dropout=config.dropout,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )

    teacher = teachers.teacher(
        config.teacher_run,
        shape=images.shape,
        num_classes=images.num_classes,
        sigma_data=config.sigma_data,
        starts=True,
    )
    model = teachers.built_as(teacher, network)
    F = teachers.network_of(teacher, model, config.sigma_data)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.consistency(F(params, labels, dropout), config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        stage_steps = max(config.steps // config.stages, 1)
        stage = curricula.ect_stage(context.step, stage_steps=stage_steps, last=config.stages - 1)
        return consistency(
            f(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            pairs=partial(pairs.ect, stage=stage, mean=config.mean, std=config.std, q=config.q),
            distance=partial(pseudo_huber, c=config.huber_c),
        )

    samplers = glue.consistency_samplers(f, images.shape, config.grids, path=edm)
    grids = glue.grids_of_samples(
        samplers[0], every=config.checkpoint_every, average="ema", num_classes=images.num_classes
    )
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        optimizer=optax.radam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        samplers=samplers,
        steps=config.steps,
        accumulate=config.accumulate,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        **judged.fields(
            in_what_is_possible(config, images),
            lambda: images,
            samplers,
            average="ema",
            num_classes=images.num_classes,
            periodic=(grids,),
        ),
        **glue.image_data(images, seed=config.seed, batch_size=config.batch_size, flip=config.flip),
    )
