"""Couplings: which noise each data point travels to."""

import jax

from .types import Batch, Key


def independent(key: Key, x: Batch) -> tuple[Batch, Batch]:
    """(x, z) with z ~ N(0, I) drawn independently of x; z has the shape and dtype of x."""
    return x, jax.random.normal(key, x.shape, x.dtype)
