"""Samples against real data: every metric of a stream of images, as rows."""

from collections.abc import Iterable, Sequence

import numpy as np

from .classifier import Classifier, label_agreement
from .compare import compare_sets
from .frechet import frechet_distance
from .reference import Reference
from .rows import Row, count_name
from .statistics import Statistics, empty, mean_and_covariance, update

Batches = Iterable[tuple[np.ndarray, np.ndarray | None]]
"""Batches of uint8 images [B, H, W, C] and the labels [B] they were asked to be of, or None."""


def judge(
    batches: Batches,
    *,
    references: Sequence[Reference],
    classifier: Classifier | None = None,
    allow_few: bool = False,
) -> list[Row]:
    """Measure generated images in one pass; independent of how they are cut into batches.

    For each reference: the Fréchet distance `fd_<feature>_<count>`, and if the reference holds its real
    features `kid_...`, `precision_...` and `recall_...`. Then `label_agreement_<count>` if there is a
    classifier, and `constant_images_<count>`, the number of images of a single colour.

    Args:
        batches: generated images with their labels.
        references: real data, one entry per feature extractor.
        classifier: the judge of labels; the batches must then have some.
        allow_few: measure a Fréchet distance of no more samples than feature dimensions. Such a covariance is
            singular and the distance too large; its row then has a `warning`.

    Raises:
        ValueError: images are not uint8 [B, H, W, C] or not of the real images' shape, labels are missing or
            out of range, there are no samples, or too few.
    """
    statistics = [empty(len(reference.mean)) for reference in references]
    kept: list[list[np.ndarray]] = [[] for _ in references]
    n, agreeing, constant = 0, 0, 0
    for images, labels in batches:
        _check_batch(images, references)
        for i, reference in enumerate(references):
            features = reference.features.extract(images)
            statistics[i] = update(statistics[i], features)
            if reference.real is not None:
                kept[i].append(features)
        if classifier is not None:
            if labels is None:
                raise ValueError("label agreement needs the labels that the samples were drawn with, got None")
            agreeing += round(label_agreement(classifier, images, labels) * len(images))
        flat = images.reshape(len(images), -1, images.shape[-1])
        constant += int((flat == flat[:, :1]).all(axis=(1, 2)).sum())
        n += len(images)
    if n == 0:
        raise ValueError("there are no samples to judge")

    rows: list[Row] = []
    for reference, own_statistics, own_features in zip(references, statistics, kept, strict=True):
        rows += _rows(own_statistics, own_features, reference, allow_few)
    if classifier is not None:
        rows.append(
            {
                "metric": f"label_agreement_{count_name(n)}",
                "value": agreeing / n,
                "n": n,
                "classifier": classifier.name,
                "held_out_accuracy": classifier.held_out_accuracy,
                "held_out_n": classifier.n_held_out,
            }
        )
    rows.append({"metric": f"constant_images_{count_name(n)}", "value": constant, "n": n})
    return rows


def _rows(statistics: Statistics, features: list[np.ndarray], reference: Reference, allow_few: bool) -> list[Row]:
    n, dim = statistics.n, len(statistics.total)
    warning = {}
    if n <= dim:
        few = f"{n} samples for {dim} dimensions of {reference.features.name}: the distance is biased upward"
        if not allow_few:
            raise ValueError(f"{few}; draw more than {dim}, or allow few")
        warning = {"warning": few}
    facts = {
        "n": n,
        "feature": reference.features.name,
        "resize": reference.features.resize,
        "reference": reference.name,
        "reference_n": reference.n,
        "reference_sha256": reference.sha256,
    }
    moments = mean_and_covariance(statistics)
    values = {"fd": frechet_distance(*moments, reference.mean, reference.covariance)}
    if reference.real is not None:
        values |= compare_sets(np.concatenate(features), reference.real)
    rows: list[Row] = []
    for measure, value in values.items():
        floor = {"real_floor": reference.floor[measure]} if measure in reference.floor else {}
        metric = f"{measure}_{reference.features.name}_{count_name(n)}"
        rows.append({"metric": metric, "value": value, **facts, **floor, **warning})
    return rows


def _check_batch(images: np.ndarray, references: Sequence[Reference]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"samples are {images.dtype} {images.shape}, expected uint8 [batch, H, W, C]")
    for reference in references:
        if reference.image_shape not in (None, images.shape[1:]):
            raise ValueError(
                f"samples have shape {images.shape[1:]}, the real images of {reference.name} {reference.image_shape}"
            )
