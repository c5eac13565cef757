"""Samples against real data: every metric of a stream of images, as rows."""

from collections.abc import Iterable, Sequence

import numpy as np

from .classifier import Classifier, label_agreement
from .devices import gather_rows, sum_over_hosts
from .features import Features
from .frechet import frechet_distance
from .names import metric_name, named
from .real import Reference, add
from .rows import Row, count_name
from .scores import Score
from .statistics import Statistics, empty, mean_and_covariance, update

Batches = Iterable[tuple[np.ndarray, np.ndarray | None]]
"""Batches of uint8 images [B, H, W, C] and the labels [B] they were asked to be of, or None."""


def judge(
    batches: Batches,
    *,
    references: Sequence[Reference],
    scores: Sequence[Score] = (),
    classifier: Classifier | None = None,
    allow_few: bool = False,
) -> list[Row]:
    """Measure generated images in one pass; independent of how they are cut into batches.

    For each reference: the Fréchet distance `fd_<feature>_<count>`, and if the reference holds its real features what
    its `compare` gives, `kid_...`, `precision_...` and `recall_...` unless told otherwise, whose rows say against how
    many real images, `real_n`. Then the scores,
    `label_agreement_<count>` if there is a classifier, and `constant_images_<count>`, the number of images of a single
    colour. Names hold the resize where there is one, see `metric_name`. On several hosts each gives its own batches and
    all get the rows of all samples.

    Args:
        batches: generated images with their labels.
        references: real data, one entry per feature extractor.
        scores: measures of the samples alone.
        classifier: the judge of labels; the batches must then have some.
        allow_few: measure a Fréchet distance of no more samples than feature dimensions. Such a covariance is
            singular and the distance too large; its row then has a `warning`.

    Raises:
        ValueError: images are not uint8 [B, H, W, C] or not of the real images' shape, labels are missing or
            out of range, features are not finite or of another dimension than the real ones, there are no samples, or
            too few.
    """
    statistics = [empty(len(reference.mean)) for reference in references]
    kept: list[list[np.ndarray]] = [[] for _ in references]
    scored: list[list[np.ndarray]] = [[] for _ in scores]
    asked: list[np.ndarray] = []
    n, agreeing, constant = 0, 0, 0
    for images, labels in batches:
        _check_batch(images, references)
        for i, reference in enumerate(references):
            if reference.real is None:
                statistics[i] = add(statistics[i], reference.features, images)
                continue
            features = reference.features.extract(images)
            statistics[i] = update(statistics[i], features)
            kept[i].append(features)
        for score, seen in zip(scores, scored, strict=True):
            seen.append(score.features.extract(images))
        if labels is not None:
            asked.append(labels)
        if classifier is not None:
            if labels is None:
                raise ValueError("label agreement needs the labels that the samples were drawn with, got None")
            agreeing += round(label_agreement(classifier, images, labels) * len(images))
        flat = images.reshape(len(images), -1, images.shape[-1])
        constant += int((flat == flat[:, :1]).all(axis=(1, 2)).sum())
        n += len(images)
    if n == 0:
        raise ValueError("there are no samples to judge")

    n, agreeing, constant = (int(x) for x in gather_rows(np.array([[n, agreeing, constant]])).sum(axis=0))
    rows: list[Row] = []
    for reference, own_statistics, own_features in zip(references, statistics, kept, strict=True):
        rows += _rows(sum_over_hosts(own_statistics), own_features, reference, allow_few)
    all_labels = gather_rows(np.concatenate(asked)) if asked else None
    for score, seen in zip(scores, scored, strict=True):
        value = score.measure(gather_rows(np.concatenate(seen)), all_labels)
        rows.append({"metric": named(score.name, score.features, n), "value": value, "n": n, **_facts(score.features)})
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
        **_facts(reference.features),
        "reference": reference.name,
        "reference_n": reference.n,
        "reference_sha256": reference.sha256,
        **({"reference_provenance": reference.provenance} if reference.provenance else {}),
    }
    moments = mean_and_covariance(statistics)
    values = {"fd": frechet_distance(*moments, reference.mean, reference.covariance)}
    kept: Row = {}
    if reference.real is not None:
        values |= reference.compare(gather_rows(np.concatenate(features)), reference.real)
        kept = {"real_n": len(reference.real)}
    rows: list[Row] = []
    for measure, value in values.items():
        floor = {"real_floor": reference.floor[measure]} if measure in reference.floor else {}
        metric = metric_name(measure, reference.features, n)
        compared = {} if measure == "fd" else kept
        rows.append({"metric": metric, "value": value, **facts, **compared, **floor, **warning})
    return rows


def _facts(features: Features) -> Row:
    weights = {"weights_sha256": features.weights} if features.weights else {}
    return {"feature": features.name, "resize": features.resize, **weights}


def _check_batch(images: np.ndarray, references: Sequence[Reference]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"samples are {images.dtype} {images.shape}, expected uint8 [batch, H, W, C]")
    for reference in references:
        if reference.image_shape not in (None, images.shape[1:]):
            raise ValueError(
                f"samples have shape {images.shape[1:]}, the real images of {reference.name} {reference.image_shape}"
            )
