"""Judges of configs that need no published network: pixels, and a classifier that is trained for it. Not a run."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

import data
import eval as evaluation

LARGEST_IN_PIXELS = 32 * 32 * 3


def pixel_judge(source: data.Source, *, limit: int = 10_000) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge in pixels against the images of a source, or `limit` that are drawn of more, which needs no network.

    Raises:
        ValueError: their covariance would be too large.
    """
    dim = int(np.prod(source.shape))
    if dim > LARGEST_IN_PIXELS:
        raise ValueError(
            f"images of {source.shape} are {dim:,} numbers, whose covariance takes {8 * dim**2 / 2**30:,.0f} GiB; judge"
            " them by features of a network, such as inception"
        )

    @cache
    def reference() -> evaluation.Reference:
        real = data.cached(source).image
        if len(real) <= limit:
            return evaluation.make_reference(f"{source.name}[:{len(real)}]", evaluation.pixels, real)
        chosen = np.sort(np.random.default_rng(0).choice(len(real), limit, replace=False))
        return evaluation.make_reference(f"{limit:,} of {source.name}", evaluation.pixels, real[chosen])

    return lambda batches: evaluation.judge(batches, references=(reference(),))


def judge_with_classifier(
    real: data.ArraySource,
    *,
    training: data.ArraySource,
    held_out: data.ArraySource,
    limit: int | None = None,
    pixels: bool = True,
    features: bool = False,
) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge against real images, and by a classifier of the training split, `evaluation.kept_classifier`.

    Distances are in pixels, in the classifier's features, or in both; `limit` takes the first real images only.
    """
    if training.label is None or held_out.label is None:
        raise ValueError(f"a classifier needs labels; {training.name} or {held_out.name} has none")
    labels, held_out_labels = training.label, held_out.label

    @cache
    def classifier() -> evaluation.Classifier:
        return evaluation.kept_classifier(
            training.image, labels, held_out.image, held_out_labels, num_classes=real.num_classes
        )

    @cache
    def references() -> tuple[evaluation.Reference, ...]:
        images = real.image[:limit]
        name = real.name if limit is None else f"{real.name}[:{len(images)}]"
        extractors = [evaluation.pixels] if pixels else []
        if features:
            extractors.append(evaluation.Features("classifier", classifier().features))
        return tuple(evaluation.make_reference(name, extractor, images) for extractor in extractors)

    return lambda batches: evaluation.judge(batches, references=references(), classifier=classifier())
