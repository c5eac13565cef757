"""Distances between two batches, one number per example.

Shapes are compared before any subtraction, since [B] against [B, 1, 1, 1] would broadcast in silence. Sums run
over all elements of an example, as the papers' norms do; nothing is averaged over pixels.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from ._shapes import Array, Float
from .types import Batch, PerExample


def _difference(a: Batch, b: Batch) -> Float[Array, "batch elements"]:
    if a.shape != b.shape:
        raise ValueError(f"a distance needs two batches of the same shape, got {a.shape} and {b.shape}")
    return jnp.subtract(a, b).reshape(a.shape[0], -1)


def l1(a: Batch, b: Batch) -> PerExample:
    """Sum of absolute differences; the gradient at a = b is 0."""
    difference = _difference(a, b)
    # jnp.abs has derivative 1 at 0 and would push equal elements apart.
    return jnp.sum(difference * jnp.sign(difference), axis=1)


def l2(a: Batch, b: Batch) -> PerExample:
    """Squared Euclidean distance: the sum, not the mean, of squared differences."""
    return jnp.sum(jnp.square(_difference(a, b)), axis=1)


def pseudo_huber(a: Batch, b: Batch, *, c: float = 0.0) -> PerExample:
    """sqrt(|a - b|^2 + c^2) - c with the norm of the whole example (Song & Dhariwal 2023, eq. 7).

    c is in units of that norm: iCT takes 0.00054 sqrt(d) for d elements. c = 0 is the plain Euclidean norm, whose
    gradient at a = b is taken as 0.
    """
    squared = l2(a, b)
    # d^2 / (sqrt(d^2 + c^2) + c) is the same number without cancellation at d << c; the floor keeps 0/0 away.
    return squared / (jnp.sqrt(jnp.maximum(squared + c**2, 1e-20)) + c)


def scaled_pseudo_huber(a: Batch, b: Batch, *, c: float = 0.00054) -> PerExample:
    """(sqrt(|a - b|^2 + (c d)^2) - c d) / d with the norm of the whole example of d elements (Lee et al. 2024's code).

    c goes with d, not with sqrt(d) as in iCT: 1.66 for CIFAR-10, where iCT has 0.030. Divided by d as published, since
    LPIPS is added to it.
    """
    d = a[0].size
    return pseudo_huber(a, b, c=c * d) / d


def elementwise_pseudo_huber(a: Batch, b: Batch, *, c: float = 1e-3) -> PerExample:
    """Mean over elements of sqrt(d^2 + c^2) - c, where d is the difference of one element (Luo et al. 2023's code).

    The one distance here that is a mean, as published for LCM and PCM, whose other terms are weighed against it.

    Raises:
        ValueError: unless c > 0, or for shapes that differ.
    """
    if not c > 0:
        raise ValueError(f"elementwise_pseudo_huber needs c > 0, got {c}")
    squared = jnp.square(_difference(a, b))
    return jnp.mean(squared / (jnp.sqrt(squared + c**2) + c), axis=1)


def summed_pseudo_huber(a: Batch, b: Batch, *, c: float) -> PerExample:
    """Sum over elements of sqrt(d^2 + c^2) - c, where d is the difference of one element (Silvestri et al. 2025).

    iCT in the code of VCT and in diffusers' script, with the c of iCT, 0.00054 sqrt(d) for d elements, which is made
    for the norm of a whole example: relative to the difference of one element it is sqrt(d) times as large.

    Raises:
        ValueError: unless c > 0, or for shapes that differ.
    """
    return elementwise_pseudo_huber(a, b, c=c) * a[0].size


def cauchy(a: Batch, b: Batch, *, c: Array | float) -> PerExample:
    """log(1 + |a - b|^2 / (2 c^2)) with the norm of the whole example (Dao et al. 2024).

    The authors' code puts the mean over the d elements where the norm is; its c is this one divided by sqrt(d).
    """
    return jnp.log1p(l2(a, b) / (2 * c**2))


def lpips(
    a: Batch,
    b: Batch,
    *,
    features: Callable[[Array], Sequence[Array]],
    weights: Sequence[Float[Array, "_"]],
) -> PerExample:
    """Learned perceptual distance: weighted squared differences of unit-length features (Zhang et al. 2018, eq. 1).

    Args:
        a: Images [B, H, W, C].
        b: Images of the same shape.
        features: Frozen network, images -> feature maps [B, h, w, channels], one for each layer.
        weights: Weight of each channel of each layer, not negative.

    Raises:
        ValueError: for shapes that differ, or another number of layers than of weights.
    """
    _difference(a, b)
    layers = list(zip(features(a), features(b), weights, strict=True))
    # A product and a sum, and not a matrix product, which accelerators round to fewer digits.
    sums = [jnp.sum(jnp.square(_unit(f) - _unit(g)) * w, axis=-1).mean(axis=(1, 2)) for f, g, w in layers]
    return sum(sums, jnp.zeros(len(a)))


def _unit(f: Array) -> Array:
    # The floor inside the root keeps the gradient finite where all channels are 0; 1e-10 is the published one.
    return f / (jnp.sqrt(jnp.sum(f**2, axis=-1, keepdims=True) + 1e-20) + 1e-10)


def log_cosh(a: Batch, b: Batch) -> PerExample:
    """Sum over elements of log cosh(a - b); quadratic near 0 and linear far away, without overflow."""
    difference = jnp.abs(_difference(a, b))
    return jnp.sum(difference + jnp.log1p(jnp.expm1(-2 * difference) / 2), axis=1)
