"""Improved precision and recall: overlap of two k-nearest-neighbour manifolds."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    generated: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], *, k: int = 3, block: int = 1024
) -> PrecisionRecall:
    """Share of generated samples on the real manifold (precision) and the reverse (recall).

    A manifold is the union of balls around its samples that reach to the k-th nearest other sample. A point on
    the rim counts, so repeated samples, whose ball has radius 0, still cover themselves. Distances are
    float32; ADM's float16 distances give other third or fourth digits.

    Args:
        generated: features of generated images.
        real: features of real images.
        k: the neighbour that a ball reaches to.
        block: rows of distances held in memory at once.

    Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991), equations (1) and (2).

    Raises:
        ValueError: a side has k samples or fewer.
    """
    if min(len(generated), len(real)) <= k:
        raise ValueError(
            f"the k-th neighbour for k = {k} needs more than {k} samples on each side, "
            f"got {len(generated)} generated and {len(real)} real"
        )
    return PrecisionRecall(
        precision=_covered(generated, real, _radii(real, k, block), block),
        recall=_covered(real, generated, _radii(generated, k, block), block),
    )


def _radii(x: np.ndarray, k: int, block: int) -> np.ndarray:
    # Index k and not k - 1: a row of distances within a set holds the sample's distance 0 to itself.
    return np.concatenate([np.partition(rows, k, axis=1)[:, k] for rows in _squared_distances(x, x, block)])


def _covered(points: np.ndarray, centers: np.ndarray, radii: np.ndarray, block: int) -> float:
    inside = sum(int((rows <= radii).any(axis=1).sum()) for rows in _squared_distances(points, centers, block))
    return inside / len(points)


def _squared_distances(a: np.ndarray, b: np.ndarray, block: int) -> Iterator[Float32[np.ndarray, "rows m"]]:
    b = b.astype(np.float64)
    b_square = (b * b).sum(axis=1)
    for start in range(0, len(a), block):
        rows = a[start : start + block].astype(np.float64)
        scale = (rows * rows).sum(axis=1)[:, None] + b_square
        squared = scale - 2 * rows @ b.T
        # |a|^2 - 2ab + |b|^2 of equal vectors is rounding noise, and a ball of radius 0 must hold its centre.
        squared[squared < 1e-12 * scale] = 0.0
        yield squared.astype(np.float32)
