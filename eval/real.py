"""What samples are judged against: real data seen through one feature extractor."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from .features import Features
from .images import Images
from .sets import Compare, compare_halves, compare_sets
from .statistics import Statistics, empty, mean_and_covariance, merge, update


class Reference(NamedTuple):
    """Real data as one feature extractor sees it.

    Attributes:
        name: data set and split, as in "digits/train".
        features: the extractor.
        mean: of the features, [D].
        covariance: of the features with divisor n - 1, [D, D].
        n: number of real images; None if a foreign file does not say.
        sha256: of mean and covariance; two references with the same hash give the same distances.
        image_shape: (H, W, C) of the real images; None if a foreign file does not say.
        real: features of real images, [m, D], for the measures of `compare`; None if only the moments are known, and
            then only the Fréchet distance is measured.
        floor: what one half of the real images scores against the other, by `compare_halves`; empty if unknown.
        compare: measures of two sets of features.
        provenance: where the moments are from, for rows; empty if they were measured by `make_reference`.
    """

    name: str
    features: Features
    mean: Float64[np.ndarray, " dim"]
    covariance: Float64[np.ndarray, "dim dim"]
    n: int | None
    sha256: str
    image_shape: tuple[int, ...] | None = None
    real: Float32[np.ndarray, "m dim"] | None = None
    floor: Mapping[str, float] = MappingProxyType({})
    compare: Compare = compare_sets
    provenance: str = ""


def make_reference(
    name: str,
    features: Features,
    images: UInt8[np.ndarray, "n height width channels"],
    *,
    compare: Compare = compare_sets,
) -> Reference:
    """Measure real images and keep their features.

    Raises:
        ValueError: fewer than 8 images, or features that are not finite.
    """
    real = features.extract(images)
    mean, covariance = mean_and_covariance(update(empty(real.shape[1]), real))
    return Reference(
        name=name,
        features=features,
        mean=mean,
        covariance=covariance,
        n=len(images),
        sha256=moments_sha256(mean, covariance),
        image_shape=images.shape[1:],
        real=real,
        floor=compare_halves(real, compare=compare),
        compare=compare,
    )


class Measured(NamedTuple):
    """A reference that was made of a stream, and the sha256 of its images."""

    reference: Reference
    images_sha256: str


def measure_stream(
    name: str, features: Features, batches: Iterable[np.ndarray], *, keep: int = 0, compare: Compare = compare_sets
) -> Measured:
    """Measure real images that do not fit into memory.

    Folders come sorted by class, so what is kept is drawn from the whole stream: the same images however they are cut
    into batches, in the stream's order, and all of them where there are no more.

    Args:
        name: data set and split.
        features: the extractor.
        batches: the images, uint8 [B, H, W, C]; batches need not be of one size.
        keep: the features of so many of them are kept, for `compare`; 0 keeps the moments alone.
        compare: measures of two sets of features.

    Raises:
        ValueError: fewer than two images, images of two shapes, or features that are not finite.
    """
    statistics: Statistics | None = None
    digest = hashlib.sha256()
    shape: tuple[int, ...] | None = None
    drawn: list[tuple[np.ndarray, np.ndarray]] = []  # features, with numbers of which the smallest are kept
    generator = np.random.default_rng(0)
    for images in batches:
        if shape not in (None, images.shape[1:]):
            raise ValueError(f"{name} has images of {shape} and of {images.shape[1:]}")
        shape = images.shape[1:]
        digest.update(np.ascontiguousarray(images).tobytes())
        if keep:
            extracted = features.extract(images)
            statistics = update(empty(extracted.shape[1]) if statistics is None else statistics, extracted)
            drawn.append((extracted, generator.random(len(images))))
            drawn = [smallest(drawn, keep)] if sum(len(rows) for rows, _ in drawn) > 2 * keep else drawn
        else:
            statistics = add(statistics, features, images)
    if statistics is None:
        raise ValueError(f"{name} has no images")
    mean, covariance = mean_and_covariance(statistics)
    real = smallest(drawn, keep)[0] if drawn else None
    # Halves of fewer features than dimensions would say nothing of the distance.
    tells = real is not None and len(real) // 2 > real.shape[1]
    reference = Reference(
        name=name,
        features=features,
        mean=mean,
        covariance=covariance,
        n=statistics.n,
        sha256=moments_sha256(mean, covariance),
        image_shape=shape,
        real=real,
        floor=compare_halves(real, compare=compare) if real is not None and tells else {},
        compare=compare,
    )
    return Measured(reference, digest.hexdigest())


def smallest(parts: Sequence[tuple[np.ndarray, np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Of rows [n, D] with their numbers [n], in parts, those with the `most` smallest numbers, in the same order."""
    rows, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    chosen = np.sort(np.argsort(numbers)[:most])
    return rows[chosen], numbers[chosen]


def add(statistics: Statistics | None, features: Features, images: Images) -> Statistics:
    """Statistics with those of a batch of images, summed on the devices where the extractor can."""
    if features.sums is not None:
        part = features.sums(images)
        return part if statistics is None else merge(statistics, part)
    extracted = features.extract(images)
    return update(empty(extracted.shape[1]) if statistics is None else statistics, extracted)


def moments_sha256(mean: np.ndarray, covariance: np.ndarray) -> str:
    """The hash by which a reference is known."""
    digest = hashlib.sha256()
    for array in (mean, covariance):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
