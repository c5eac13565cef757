"""Kernel distance (KID): unbiased squared maximum mean discrepancy under a cubic kernel."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class KernelDistance(NamedTuple):
    """Mean and population standard deviation over subsets."""

    mean: float
    standard_deviation: float


def kernel_distance(
    generated: Float[np.ndarray, "n dim"],
    real: Float[np.ndarray, "m dim"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:
    """Unbiased squared MMD under `(x y / D + 1)^3`, averaged over random subsets drawn without replacement.

    Not scaled by 1000. Values a little below zero are legitimate. A subset has `min(subset_size, n, m)`
    vectors; with the defaults and enough vectors this is torch-fidelity's convention.

    Source: Binkowski et al. 2018 (arXiv 1801.01401), equation (4).

    Raises:
        ValueError: fewer than 2 vectors on a side.
    """
    if min(len(generated), len(real)) < 2:
        raise ValueError(f"need at least 2 generated and 2 real samples, got {len(generated)} and {len(real)}")
    size = min(subset_size, len(generated), len(real))
    if size == len(generated) == len(real):
        subsets = 1  # each subset would be the whole set again
    random = np.random.RandomState(seed)
    values = [
        squared_mmd(
            generated[random.choice(len(generated), size, replace=False)],
            real[random.choice(len(real), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def squared_mmd(x: Float[np.ndarray, "size dim"], y: Float[np.ndarray, "size dim"]) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of one size, cubic kernel, float64."""
    size = len(x)
    x, y = _with_one(x), _with_one(y)
    diagonals = sum(((a * a).sum(axis=1) ** 3).sum() for a in (x, y))
    within = _sum_of_cubes(x @ x.T) + _sum_of_cubes(y @ y.T) - diagonals
    return float(within / (size * (size - 1)) - 2 * _sum_of_cubes(x @ y.T) / size**2)


def _with_one(x: np.ndarray) -> np.ndarray:
    """Vectors whose inner products are the `x y / D + 1` of `x`."""
    return np.pad(x.astype(np.float64) / np.sqrt(x.shape[1]), ((0, 0), (0, 1)), constant_values=1.0)


def _sum_of_cubes(values: np.ndarray) -> float:
    return np.vdot(values * values, values)
