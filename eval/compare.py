"""Measures of two sets of features, and what real data score by them."""

import numpy as np
from jaxtyping import Float32

from .features import Features
from .frechet import frechet_distance
from .images import Images
from .kid import kernel_distance
from .precision_recall import precision_recall
from .statistics import empty, mean_and_covariance, update


def compare_sets(generated: Float32[np.ndarray, "n dim"], real: Float32[np.ndarray, "m dim"]) -> dict[str, float]:
    """`kid`, `precision` and `recall`: the measures that need every feature and not only their moments."""
    precision, recall = precision_recall(generated, real)
    return {"kid": kernel_distance(generated, real).mean, "precision": precision, "recall": recall}


def real_floor(images: Images, features: Features, *, seed: int = 0) -> dict[str, float]:
    """What real images score against each other: one random half of them against the other half.

    A perfect generator does about as well at this count; the distances shrink with more images.

    Returns:
        `fd`, `kid`, `precision` and `recall`.

    Raises:
        ValueError: fewer than 8 images.
    """
    return compare_halves(features.extract(images), seed=seed)


def compare_halves(real: Float32[np.ndarray, "n dim"], *, seed: int = 0) -> dict[str, float]:
    """`real_floor` of features that are known already."""
    if len(real) < 8:
        raise ValueError(f"two halves need at least 8 real images, got {len(real)}")
    order = np.random.RandomState(seed).permutation(len(real))
    half = len(real) // 2
    a, b = real[order[:half]], real[order[half : 2 * half]]
    moments_a, moments_b = (mean_and_covariance(update(empty(x.shape[1]), x)) for x in (a, b))
    return {"fd": frechet_distance(*moments_a, *moments_b), **compare_sets(a, b)}
