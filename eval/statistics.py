"""Mean and covariance of features, summed while they stream by: in float64, batches on a device in float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32


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


class BatchSums(NamedTuple):
    """What a batch adds to `Statistics`, in float32 on the device, measured from its own mean.

    Attributes:
        n: rows that count.
        bad: those of them that hold NaN or infinite values.
        center: about the mean of the rows; the sums are of what they differ from it by.
        total: sum of the differences.
        outer: sum of their outer products.
    """

    n: Int32[Array, ""]
    bad: Int32[Array, ""]
    center: Float32[Array, " dim"]
    total: Float32[Array, " dim"]
    outer: Float32[Array, "dim dim"]


def batch_sums(features: Float[Array, "batch dim"], counts: Bool[Array, " batch"]) -> BatchSums:
    """Sum the features that count, on the device; the others are padding, and may be anything."""
    n = jnp.sum(counts.astype(jnp.int32))
    x = jnp.where(counts[:, None], features, 0).astype(jnp.float32)
    bad = jnp.sum(~jnp.isfinite(x).all(axis=1))
    # Sums of products of features themselves would be rounded by their mean squares, of which a covariance is the rest.
    center = x.sum(axis=0) / n
    y = jnp.where(counts[:, None], x - center, 0)
    # At default precision an accelerator rounds the factors to 8 or 11 bits.
    outer = jnp.matmul(y.T, y, precision=jax.lax.Precision.HIGHEST)
    return BatchSums(n, bad.astype(jnp.int32), center, y.sum(axis=0), outer)


def add_sums(statistics: Statistics, sums: BatchSums) -> Statistics:
    """Add what a batch summed to on the device, in float64 on the host.

    Raises:
        ValueError: values are NaN or infinite.
    """
    n, bad = int(sums.n), int(sums.bad)
    if bad:
        raise ValueError(f"{bad} of {n} feature vectors hold NaN or infinite values")
    c, y, yy = (np.asarray(part, np.float64) for part in (sums.center, sums.total, sums.outer))
    half = np.outer(c, y + n * c / 2)  # c y' + y c' + n c c' is this and its transpose
    outer = yy + half + half.T
    return Statistics(statistics.n + n, statistics.total + y + n * c, statistics.outer + outer)


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
