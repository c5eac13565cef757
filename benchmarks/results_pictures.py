"""The pictures of a page of results: a plot of its table, and samples of every method below one another."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import eval as evaluation

from .results_kept import Kept, recall, recall_samples
from .results_page import all_rows, lines_of, metric_name
from .results_rows import Table
from .results_runs import Finished, Place

PAIRS = 10  # of images in a row without classes


def draw_plot(table: Table, done: Mapping[str, Finished], path: Path) -> None:
    """The Fréchet distance over the number of network evaluations, a line for each method; means over seeds."""
    rows = [
        {
            "metric": metric_name(done, table.distance),
            "value": float(np.mean(values)),
            "nfe": nfe,
            "sampler": line.label,
        }
        for line in lines_of(table, done)
        if not line.runs[0].control
        for nfe, values in line.values(table.distance).items()
    ]
    if rows:
        floors = [{"real_floor": row["real_floor"]} for row in all_rows(done, table.distance) if "real_floor" in row][
            :1
        ]
        rows[0] |= floors[0] if floors else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        evaluation.metric_against_nfe(rows, metric_name(done, table.distance)).savefig(path, dpi=110)


def draw_samples(table: Table, done: Mapping[str, Finished], place: Place, kept: Kept, path: Path) -> None:
    """A row of samples for each method at its fewest steps, all from the same noise, and a row of real images.

    A class-conditional row has two images of each class. Rows of runs that are not here are those that were kept;
    a run without either has numbers alone.
    """
    strips: list[tuple[str, Image.Image]] = []
    experiment: Any = None
    for line in lines_of(table, done):
        run = next((run for run in line.runs if run.name in line.done), None)
        if run is None or run.control:
            continue
        nfe = min(line.values(table.distance))
        name = run.name + line.view.replace(",", "").replace(" ", "_")
        recalled = recall(run, kept)
        same = recalled is not None and recalled.rows == done[run.name].rows
        picture = recall_samples(name, kept) if same else None
        if picture is None:
            try:
                experiment = evaluation.load_experiment(place.workdir(run))
                params, _ = experiment.restore(place.workdir(run), experiment.judged_average, None)
            except FileNotFoundError:
                continue
            sampler = next(s for s in experiment.samplers if s.nfe == nfe and s.name.endswith(line.ending))
            n, classes = 2 * (experiment.num_classes or PAIRS), experiment.num_classes
            images, labels = evaluation.draw_all(sampler, params, n=n, seed=0, num_classes=classes, batch_size=n)
            picture = strip(images, labels, classes)
            save(picture, kept.samples(name))
        strips.append((f"{line.label}, {nfe} step{'s' * (nfe > 1)}", picture))
    real = f"{table.pictures}_real"
    if experiment is not None:
        shown = {run.name: run for run in table.runs}.get(table.real)
        source = evaluation.load_experiment(place.workdir(shown)) if shown else experiment
        save(real_strip(source, experiment.num_classes), kept.samples(real))
    picture = recall_samples(real, kept)
    if strips and picture is not None:
        save(stacked([*strips, ("real", picture)]), path)


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture into a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def real_strip(experiment: Any, classes: int) -> Image.Image:
    """Real images as their run is trained on them, from enough batches for two of each class."""
    batches = list(islice(experiment.batches(0), 8))
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches]) if classes else None
    return strip(images, labels, classes)


def strip(images: np.ndarray, labels: np.ndarray | None, classes: int) -> Image.Image:
    """One row: two images of each class, or as many if there are no classes."""
    if classes and labels is not None:
        images = evaluation.by_class(images, labels, num_classes=classes, columns=2)
    n = 2 * (classes or PAIRS)
    return evaluation.grid(images, 1, n, scale=max(1, 40 // images.shape[1]))


def stacked(strips: Sequence[tuple[str, Image.Image]], *, space: int = 8) -> Image.Image:
    """Pictures below one another, each to the right of its caption."""
    font = ImageFont.load_default(16)
    left = 3 * space + max(int(font.getlength(caption)) + 1 for caption, _ in strips)
    width = left + max(picture.width for _, picture in strips) + space
    canvas = Image.new("RGB", (width, space + sum(picture.height + space for _, picture in strips)), (255, 255, 255))
    ink, top = ImageDraw.Draw(canvas), space
    for caption, picture in strips:
        ink.text((space, top + picture.height / 2), caption, fill=(40, 40, 40), font=font, anchor="lm")
        canvas.paste(picture, (left, top))
        top += picture.height + space
    return canvas
