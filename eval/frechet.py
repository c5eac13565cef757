"""Fréchet distance between two Gaussians, in float64 on the host."""

import numpy as np
from jaxtyping import Float64


def frechet_distance(
    mean_a: Float64[np.ndarray, " dim"],
    covariance_a: Float64[np.ndarray, "dim dim"],
    mean_b: Float64[np.ndarray, " dim"],
    covariance_b: Float64[np.ndarray, "dim dim"],
) -> float:
    """Squared 2-Wasserstein distance between N(mean_a, covariance_a) and N(mean_b, covariance_b).

    `|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 |A^(1/2) B^(1/2)|_*`, where the nuclear norm equals
    `tr((A B)^(1/2))` without the square root of a product of small eigenvalues: the value stays good to
    about 1e-13 of the traces when a covariance is rank-deficient, so no multiple of I is added. Rounding can
    leave it below zero by as much.

    Source: Dowson and Landau 1982, equation (4); as a score of images, Heusel et al. 2017 (arXiv 1706.08500).
    """
    # A = a a^T and B = b b^T, so A^(1/2) B^(1/2) and a^T b differ by rotations and share singular values.
    root_a, root_b = _factor(covariance_a), _factor(covariance_b)
    fidelity = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    shift = mean_a - mean_b
    return float(shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * fidelity)


def _factor(covariance: np.ndarray) -> np.ndarray:
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    # eigh returns the zeros of a rank-deficient matrix as values around -1e-16.
    return eigenvectors * np.sqrt(np.maximum(eigenvalues, 0.0))
