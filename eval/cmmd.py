"""CMMD: biased squared maximum mean discrepancy under a Gaussian kernel, of unit vectors such as CLIP's embeddings."""

import numpy as np
from jaxtyping import Float, Float64

SIGMA = 10.0
SCALE = 1000.0


def cmmd(generated: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], *, block: int = 1024) -> float:
    """1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), k(a, b) = exp(-|a - b|^2 / 200), all pairs counted.

    Features are brought to length 1 first. Every kernel value then lies in [0.98, 1]; 1 is taken from each, which
    changes nothing in the sum but keeps the digits that it is about. Float64.

    Source: Jayasumana et al. 2024 (arXiv 2401.09603), equation (5), with the constants of the authors' code.

    Raises:
        ValueError: a side is empty, or a feature vector is 0 or not finite.
    """
    if min(len(generated), len(real)) < 1:
        raise ValueError(f"need at least one sample on each side, got {len(generated)} generated, {len(real)} real")
    x, y = unit(generated), unit(real)
    return SCALE * (_mean_kernel(x, x, block) + _mean_kernel(y, y, block) - 2 * _mean_kernel(x, y, block))


def unit(features: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "n dim"]:
    """Vectors of length 1 in float64.

    Raises:
        ValueError: some have no direction.
    """
    x = features.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    bad = int((~np.isfinite(length) | (length == 0)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(x)} feature vectors are 0 or not finite and have no direction")
    return x / length


def _mean_kernel(a: np.ndarray, b: np.ndarray, block: int) -> float:
    """Mean of k - 1; of unit vectors |a - b|^2 = 2 - 2ab."""
    total = sum(float(np.expm1((a[i : i + block] @ b.T - 1) / SIGMA**2).sum()) for i in range(0, len(a), block))
    return total / (len(a) * len(b))
