"""Distances to nearest neighbours within a set, and between two sets, a block of rows at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32


def radii(x: Float[np.ndarray, "n dim"], k: int, block: int) -> Float32[np.ndarray, " n"]:
    """Squared distance from each vector to the k-th nearest other one."""
    # Index k and not k - 1: a row of distances within a set holds the sample's distance 0 to itself.
    return np.concatenate([np.partition(rows, k, axis=1)[:, k] for rows in squared_distances(x, x, block)])


def squared_distances(
    a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "m dim"], block: int
) -> Iterator[Float32[np.ndarray, "rows m"]]:
    """Squared Euclidean distances of blocks of `a` to all of `b`, computed in float64 and rounded to float32."""
    b = b.astype(np.float64)
    b_square = (b * b).sum(axis=1)
    for start in range(0, len(a), block):
        rows = a[start : start + block].astype(np.float64)
        scale = (rows * rows).sum(axis=1)[:, None] + b_square
        squared = scale - 2 * rows @ b.T
        # |a|^2 - 2ab + |b|^2 of equal vectors is rounding noise, and a ball of radius 0 must hold its centre.
        squared[squared < 1e-12 * scale] = 0.0
        yield squared.astype(np.float32)


def check_neighbours(generated: np.ndarray, real: np.ndarray, k: int) -> None:
    """Refuse sets in which a sample has no k-th neighbour.

    Raises:
        ValueError: k is below 1, or a side has k samples or fewer.
    """
    if k < 1:
        raise ValueError(f"k is {k}; a sample's nearest neighbour is number 1")
    if min(len(generated), len(real)) <= k:
        raise ValueError(
            f"the k-th neighbour for k = {k} needs more than {k} samples on each side, "
            f"got {len(generated)} generated and {len(real)} real"
        )
