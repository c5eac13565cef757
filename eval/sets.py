"""Measures of two sets of features, and what real data score by them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from .cmmd import cmmd
from .density_coverage import density_coverage
from .frechet import frechet_distance
from .kid import kernel_distance
from .precision_recall import precision_recall
from .statistics import empty, mean_and_covariance, update

Compare = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""compare(generated[n, D], real[m, D]) -> values by the name of their measure"""


def compare_sets(generated: Float32[np.ndarray, "n dim"], real: Float32[np.ndarray, "m dim"]) -> dict[str, float]:
    """`kid`, `precision` and `recall`: the measures that need every feature and not only their moments."""
    precision, recall = precision_recall(generated, real)
    return {"kid": kernel_distance(generated, real).mean, "precision": precision, "recall": recall}


def compare_sets_and_coverage(
    generated: Float32[np.ndarray, "n dim"], real: Float32[np.ndarray, "m dim"]
) -> dict[str, float]:
    """The same with `density` and `coverage`."""
    density, coverage = density_coverage(generated, real)
    return {**compare_sets(generated, real), "density": density, "coverage": coverage}


def compare_embeddings(generated: Float32[np.ndarray, "n dim"], real: Float32[np.ndarray, "m dim"]) -> dict[str, float]:
    """`cmmd` alone: for embeddings that are compared by their direction, as CLIP's."""
    return {"cmmd": cmmd(generated, real)}


def compare_halves(
    real: Float32[np.ndarray, "n dim"], *, seed: int = 0, compare: Compare = compare_sets
) -> dict[str, float]:
    """What real images score against each other: features of one random half of them against those of the other half.

    A perfect generator does about as well at this count; the distances shrink with more images.

    Returns:
        `fd`, and what `compare` gives.

    Raises:
        ValueError: fewer than 8 images.
    """
    if len(real) < 8:
        raise ValueError(f"two halves need at least 8 real images, got {len(real)}")
    order = np.random.RandomState(seed).permutation(len(real))
    half = len(real) // 2
    a, b = real[order[:half]], real[order[half : 2 * half]]
    moments_a, moments_b = (mean_and_covariance(update(empty(x.shape[1]), x)) for x in (a, b))
    return {"fd": frechet_distance(*moments_a, *moments_b), **compare(a, b)}
