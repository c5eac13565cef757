"""Density and coverage: precision and recall by balls around real samples alone."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .neighbours import check_neighbours, radii, squared_distances


class DensityCoverage(NamedTuple):
    """Density is 1 in expectation for samples of the real distribution, and may exceed 1; coverage is in [0, 1]."""

    density: float
    coverage: float


def density_coverage(
    generated: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], *, k: int = 5, block: int = 1024
) -> DensityCoverage:
    """How many real balls a generated sample lies in, over k; and the share of real balls that hold any.

    A ball reaches from a real sample to the k-th nearest other real one. It is closed, as in the paper and in
    `precision_recall`; the authors' code takes open ones, which differs only where distances are equal. k = 5 is
    theirs.

    Args:
        generated: features of generated images.
        real: features of real images.
        k: the neighbour that a ball reaches to.
        block: rows of distances held in memory at once.

    Source: Naeem et al. 2020 (arXiv 2002.09797), equations (4) and (5).

    Raises:
        ValueError: k is below 1, or a side has k samples or fewer.
    """
    check_neighbours(generated, real, k)
    reach = radii(real, k, block)
    inside, covered = 0, np.zeros(len(real), bool)
    for rows in squared_distances(generated, real, block):
        holds = rows <= reach
        inside += int(holds.sum())
        covered |= holds.any(axis=0)
    return DensityCoverage(inside / (k * len(generated)), float(covered.mean()))
