"""Every measure of two sets of features at once, and what real data score by it."""

import numpy as np
from jaxtyping import Float32, Float64

from .frechet import frechet_distance
from .kid import kernel_distance
from .precision_recall import precision_recall
from .statistics import empty, mean_and_covariance, update


def compare(
    generated: Float32[np.ndarray, "n dim"],
    mean: Float64[np.ndarray, " dim"],
    covariance: Float64[np.ndarray, "dim dim"],
    real: Float32[np.ndarray, "m dim"] | None,
) -> dict[str, float]:
    """Measure generated features against real ones.

    Args:
        generated: features of generated images.
        mean: of the real features.
        covariance: of the real features.
        real: the real features, if there are more than their moments.

    Returns:
        `fd`, and if there are real features `kid`, `precision` and `recall`.
    """
    own_mean, own_covariance = mean_and_covariance(update(empty(generated.shape[1]), generated))
    values = {"fd": frechet_distance(own_mean, own_covariance, mean, covariance)}
    if real is not None:
        values["kid"] = kernel_distance(generated, real).mean
        values["precision"], values["recall"] = precision_recall(generated, real)
    return values


def real_floor(real: Float32[np.ndarray, "n dim"], *, seed: int = 0) -> dict[str, float]:
    """What real images score against each other: one random half of their features against the other.

    A perfect generator does about as well at this count; the distances shrink with more images.

    Returns:
        `fd`, `kid`, `precision` and `recall`.

    Raises:
        ValueError: fewer than 8 images.
    """
    if len(real) < 8:
        raise ValueError(f"two halves need at least 8 real images, got {len(real)}")
    order = np.random.RandomState(seed).permutation(len(real))
    half = len(real) // 2
    a, b = real[order[:half]], real[order[half : 2 * half]]
    return compare(a, *mean_and_covariance(update(empty(b.shape[1]), b)), b)
