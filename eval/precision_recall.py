"""Improved precision and recall: overlap of two k-nearest-neighbour manifolds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .neighbours import check_neighbours, radii, squared_distances


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
    check_neighbours(generated, real, k)
    return PrecisionRecall(
        precision=_covered(generated, real, radii(real, k, block), block),
        recall=_covered(real, generated, radii(generated, k, block), block),
    )


def _covered(points: np.ndarray, centers: np.ndarray, reach: np.ndarray, block: int) -> float:
    inside = sum(int((rows <= reach).any(axis=1).sum()) for rows in squared_distances(points, centers, block))
    return inside / len(points)
