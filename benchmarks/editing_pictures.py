"""Pictures of a trained consistency function that fills in, sharpens, colours, follows strokes, and interpolates.

    python -m benchmarks.editing_pictures --workdir runs/digits_coloured --out docs/images/editing.png

The config of the run must have `consistency_function(config) -> (params, labels) -> net`, on the EDM path, and
`source(config)`. References are the first example of each class that is shown, or the first examples of data without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import eval as evaluation
from data import Source, to_model_range
from losses import edm
from samplers import edit, editing, grids, multistep_consistency, noise, sample_keys

NetOf = Callable[[Any, jax.Array | None], Callable[[jax.Array, jax.Array], jax.Array]]

EDIT_TIMES = grids.karras(40, sigma_min=0.1)
STROKE_TIMES = grids.explicit(1.5, 0.6, 0.25)
INTERPOLATION_TIMES = grids.explicit(80.0)
ROWS = ("reference", "given", "result")


class Panel(NamedTuple):
    """A caption over images as uint8 [rows, columns, H, W, C]."""

    caption: str
    images: np.ndarray


class Model(NamedTuple):
    """A trained run: its consistency function, the weights to use, and what it was trained on."""

    net_of: NetOf
    params: Any
    source: Source


def load_model(workdir: Path) -> Model:
    """The model of a run, with the weights it is judged with.

    Raises:
        ValueError: its config has no `consistency_function` or no `source`.
    """
    config_file, config = evaluation.read_run(workdir)
    module = evaluation.load_module(config_file)
    missing = [name for name in ("consistency_function", "source") if not hasattr(module, name)]
    if missing:
        raise ValueError(f"{config_file} has no {' and no '.join(missing)}: its models cannot be edited with here")
    experiment = evaluation.load_experiment(workdir)
    params, _ = experiment.restore(workdir, experiment.judged_average, None)
    return Model(module.consistency_function(config), params, module.source(config))


def references(source: Source, n: int) -> tuple[jax.Array, jax.Array | None]:
    """Images in [-1, 1] and their labels: the first of n classes, or the first n without classes."""
    if not source.num_classes:
        return to_model_range(jnp.asarray(np.stack([source[i]["image"] for i in range(n)]))), None
    if n > source.num_classes:
        raise ValueError(f"{source.name} has {source.num_classes} classes, {n} cannot be shown")
    found: dict[int, np.ndarray] = {}
    for i in range(len(source)):
        example = source[i]
        found.setdefault(int(example["label"]), example["image"])
        if all(label in found for label in range(n)):
            break
    return to_model_range(jnp.asarray(np.stack([found[label] for label in range(n)]))), jnp.arange(n)


def given(images: jax.Array) -> dict[str, tuple[editing.Task, jax.Array]]:
    """What can be asked of such images, and all that the sampler is given of them."""
    height, width, channels = images.shape[1:]
    lower_half = np.broadcast_to(np.arange(height)[:, None, None] >= height // 2, (height, width, 1))
    chosen = {"inpainting": editing.inpainting(lower_half), "super-resolution": editing.super_resolution(2)}
    asked = {caption: (task, editing.known_part(images, task)) for caption, task in chosen.items()}
    if channels == 3:
        grey = jnp.repeat(images @ jnp.asarray([[0.299], [0.587], [0.114]]), 3, axis=-1)
        asked["colourisation"] = editing.colourisation(), grey
    return asked


def paint(images: jax.Array) -> jax.Array:
    """A crude painting of each image: squares of 2 x 2 pixels, every value black, middle or white."""
    return jnp.round(editing.known_part(images, editing.super_resolution(2)))


def panels(model: Model, *, n: int, seed: int) -> list[Panel]:
    """Every kind of editing on the same n references."""
    images, labels = references(model.source, n)
    keys = sample_keys(seed, jnp.arange(n))
    net = model.net_of(model.params, labels)

    drawn = []
    for caption, (task, known) in given(images).items():
        run = jax.jit(partial(edit, net, times=EDIT_TIMES, task=task, path=edm))
        drawn.append(panel(caption, images, known, run(known, keys=keys)))
    painting = paint(images)
    run = jax.jit(partial(editing.stroke_guided, net, times=STROKE_TIMES, path=edm))
    drawn.append(panel("strokes", images, painting, run(painting, keys=keys)))
    drawn.append(interpolation(model, shape=images.shape[1:], rows=len(ROWS), columns=n + 2, labels=labels, seed=seed))
    return drawn


def interpolation(
    model: Model, *, shape: tuple[int, ...], rows: int, columns: int, labels: jax.Array | None, seed: int
) -> Panel:
    """One-step samples from noise between two noises, a pair and a class for each row."""
    a, b = (noise.initial(sample_keys(seed, jnp.arange(rows) + start), shape) for start in (0, rows))
    share = jnp.tile(jnp.linspace(0, 1, columns), rows)
    z = editing.interpolate_noise(jnp.repeat(a, columns, axis=0), jnp.repeat(b, columns, axis=0), share)
    if labels is not None:
        labels = jnp.repeat(labels[jnp.arange(rows) % len(labels)], columns)
    net = model.net_of(model.params, labels)
    keys = sample_keys(seed, jnp.arange(rows * columns))
    start = INTERPOLATION_TIMES[0] * z
    made = jax.jit(partial(multistep_consistency, net, times=INTERPOLATION_TIMES, path=edm))(start, keys=keys)
    return Panel("interpolation", evaluation.to_uint8(made).reshape(rows, columns, *shape))


def panel(caption: str, reference: jax.Array, given: jax.Array, result: jax.Array) -> Panel:
    """Reference, what the sampler was given, and what it made of that, one above the other."""
    return Panel(caption, np.stack([evaluation.to_uint8(images) for images in (reference, given, result)]))


def draw(drawn: list[Panel]) -> Image.Image:
    """All panels side by side, with the names of the rows at the left."""
    pictures = []
    for caption, images in drawn:
        rows, columns, *shape = images.shape
        pictures.append((caption, evaluation.grid(images.reshape(-1, *shape), rows, columns)))
    return evaluation.labelled_panels([("", row_names(pictures[0][1].height)), *pictures])


def row_names(height: int) -> Image.Image:
    """The names of the rows of a panel of this height, each in the middle of its row."""
    font = ImageFont.load_default(max(14, height // 28))
    names = Image.new("RGB", (max(int(font.getlength(name)) + 1 for name in ROWS), height), (255, 255, 255))
    ink = ImageDraw.Draw(names)
    for row, name in enumerate(ROWS):
        ink.text((names.width, (row + 0.5) * height / len(ROWS)), name, fill=(40, 40, 40), font=font, anchor="rm")
    return names


def main() -> None:
    """Draws the picture of a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the trained run")
    parser.add_argument("--out", type=Path, required=True, help="the picture, as PNG")
    parser.add_argument("--n", type=int, default=5, help="references; at most the number of classes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = load_model(arguments.workdir)
    picture = draw(panels(model, n=arguments.n, seed=arguments.seed))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
