"""Pictures of a finished run."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import eval as evaluation
import train

COLUMNS = 10  # of a grid; a class-conditional one has a row for each class instead


def draw_pictures(experiment: train.Experiment, workdir: Path) -> None:
    """Grids of every sampler beside real images, unless samples are latents; and the loss curves."""
    if train.is_first() and (log := train.read_log(workdir)):  # a run of no steps has none
        evaluation.loss_curves(log).savefig(workdir / "loss.png")
    params, _ = experiment.restore(workdir, experiment.judged_average, None)
    if not draws_pictures(experiment, params):
        return
    classes = experiment.num_classes or COLUMNS
    labels = np.arange(classes * COLUMNS) % classes

    def panel(images: np.ndarray) -> Image.Image:
        ordered = evaluation.by_class(images, labels, num_classes=classes, columns=COLUMNS)
        return evaluation.grid(ordered, classes, COLUMNS)

    panels = []
    for sampler in experiment.samplers:
        images, _ = evaluation.draw_all(
            sampler, params, n=len(labels), seed=0, num_classes=experiment.num_classes, batch_size=500
        )
        told = told_apart(sampler, experiment.samplers).replace("_", " ")
        steps = f"{sampler.nfe} step{'s' * (sampler.nfe > 1)}{told}" if sampler.nfe else sampler.name
        panels.append((steps, panel(images)))
    if not train.is_first():
        return
    real = real_images(experiment, labels)
    if real.dtype == np.uint8:  # what a model of latents is trained on is no picture
        panels.append(("real", panel(real)))
    evaluation.labelled_panels(panels).save(workdir / "samples.png")


def draws_pictures(experiment: train.Experiment, params: train.Params) -> bool:
    """Whether samples are grey or coloured images, and not latents or vectors."""
    keys, labels = jax.random.split(jax.random.key(0), 2), np.zeros(2, np.int32)
    shape = jax.eval_shape(experiment.samplers[0].sample, params, keys, labels).shape
    return len(shape) == 4 and shape[-1] in (1, 3)


def real_images(experiment: train.Experiment, labels: np.ndarray) -> np.ndarray:
    """What the model is trained on, of these labels, or any if it is unconditional: uint8 images, or latents."""
    waiting: dict[int, list[np.ndarray]] = {int(label): [] for label in labels}
    for batch in experiment.batches(0):
        of = batch["label"] if experiment.num_classes else np.resize(np.unique(labels), len(batch["image"]))
        for image, label in zip(batch["image"], of, strict=True):
            waiting[int(label)].append(image)
        if all(len(images) >= len(labels) for images in waiting.values()):
            break
    return np.stack([waiting[int(label)].pop() for label in labels])


def told_apart(sampler: train.Sampler, samplers: Sequence[train.Sampler]) -> str:
    """What tells a sampler from others of as many evaluations, such as "_guidance_1.5"; "" if there are none."""
    alike = sum(other.nfe == sampler.nfe for other in samplers) > 1
    return "_" + sampler.name.rpartition(", ")[2].replace(" ", "_") if alike else ""
