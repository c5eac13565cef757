"""What most configs bind in the same way: batches to the trainer, samplers to a consistency function, a judge.

Configs and main.py alone join the islands; this file holds the joints that several configs share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import data
import eval as evaluation
import train
from losses import Path as NoisePath
from losses.types import Net
from samplers import multistep_consistency
from samplers.noise import initial

NetOf = Callable[[train.Params, jax.Array], Net]
"""(params, labels) -> the network as it is sampled"""


def first_checked(source: data.Source, *, num_classes: int, **order: Any) -> Callable[[int], Iterator[train.Batch]]:
    """Batches of a source from any step on; the first one of every start is checked on the host."""

    def batches(start_step: int) -> Iterator[train.Batch]:
        iterator = data.batches(source, start_step=start_step, **order)
        first = next(iterator)
        data.check_batch(first, shape=source.shape, num_classes=num_classes)
        yield first
        yield from iterator

    return batches


def to_model(key: jax.Array, batch: train.Batch) -> train.Batch:
    """uint8 images to float32 in [-1, 1]."""
    return {**batch, "image": data.to_model_range(batch["image"])}


def flipped_to_model(key: jax.Array, batch: train.Batch) -> train.Batch:
    """The same, each image mirrored with probability 1/2."""
    return {**batch, "image": data.to_model_range(data.horizontal_flip(key, batch["image"]))}


def consistency_samplers(
    net_of: NetOf,
    shape: tuple[int, ...],
    grids: Sequence[Sequence[float]],
    *,
    path: NoisePath,
    sigma_min: float = 0.0,
) -> tuple[train.Sampler, ...]:
    """One multistep consistency sampler for each grid of times."""

    def sample_on(times: np.ndarray, params: train.Params, keys: jax.Array, labels: jax.Array) -> jax.Array:
        x = path.sigma(jnp.asarray(times[0], jnp.float32)) * initial(keys, shape)
        return multistep_consistency(net_of(params, labels), x, times, keys, path=path, sigma_min=sigma_min)

    return tuple(
        train.Sampler(
            name="consistency " + ", ".join(f"{t:g}" for t in grid),
            nfe=len(grid),
            sample=partial(sample_on, np.asarray(grid)),
        )
        for grid in grids
    )


def judge_with_classifier(
    real: data.ArraySource, *, train: data.ArraySource, held_out: data.ArraySource
) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge in pixels against all real images, and by a classifier trained on the training split when first needed."""
    pixels = evaluation.pixels

    assert train.label is not None
    assert held_out.label is not None

    @cache
    def classifier() -> evaluation.Classifier:
        return evaluation.train_classifier(
            train.image, train.label, held_out.image, held_out.label, num_classes=real.num_classes
        )

    @cache
    def reference() -> evaluation.Reference:
        return evaluation.make_reference(real.name, pixels, real.image)

    def judge(batches: Iterable[Any]) -> list[evaluation.Row]:
        floor = evaluation.real_floor(real.image, pixels)
        rows = evaluation.judge(batches, references=(reference(),), classifier=classifier())
        named = {f"{measure}_{pixels.name}": value for measure, value in floor.items()}
        return [
            {**row, "real_floor": named[row["metric"].rpartition("_")[0]]}
            if row["metric"].rpartition("_")[0] in named
            else row
            for row in rows
        ]

    return judge
