"""Mean and covariance of features, summed in float64 while they stream by."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64


class Statistics(NamedTuple):
    """Sums over the features seen so far; independent of how they were cut into batches.

    Attributes:
        n: number of feature vectors.
        total: their sum, [D].
        outer: the sum of their outer products, [D, D].
    """

    n: int
    total: Float64[np.ndarray, " dim"]
    outer: Float64[np.ndarray, "dim dim"]


def empty(dim: int) -> Statistics:
    """Statistics of no feature vectors of dimension `dim`."""
    return Statistics(0, np.zeros(dim), np.zeros((dim, dim)))


def update(statistics: Statistics, features: Float[np.ndarray, "batch dim"]) -> Statistics:
    """Add a batch of features; products are taken in float64.

    Raises:
        ValueError: the dimension differs from the earlier ones, or values are NaN or infinite.
    """
    if features.shape[1] != len(statistics.total):
        raise ValueError(f"features have dimension {features.shape[1]}, expected {len(statistics.total)}")
    if not np.isfinite(features).all():
        count = int((~np.isfinite(features).all(axis=1)).sum())
        raise ValueError(f"{count} of {len(features)} feature vectors hold NaN or infinite values")
    x = features.astype(np.float64)
    return Statistics(statistics.n + len(x), statistics.total + x.sum(axis=0), statistics.outer + x.T @ x)


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of both sets of features together."""
    if a.total.shape != b.total.shape:
        raise ValueError(f"cannot merge statistics of dimensions {len(a.total)} and {len(b.total)}")
    return Statistics(a.n + b.n, a.total + b.total, a.outer + b.outer)


def mean_and_covariance(
    statistics: Statistics,
) -> tuple[Float64[np.ndarray, " dim"], Float64[np.ndarray, "dim dim"]]:
    """Mean [D] and covariance [D, D] with divisor n - 1, as `np.cov`.

    Raises:
        ValueError: fewer than two feature vectors.
    """
    n = statistics.n
    if n < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {n}")
    mean = statistics.total / n
    return mean, (statistics.outer - n * np.outer(mean, mean)) / (n - 1)
