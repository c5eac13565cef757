"""How sCM bounds the tangent it regresses on: plain functions g[B, ...] -> g[B, ...]."""

import jax.numpy as jnp

from .paths import expand
from .types import Batch


def normalised(g: Batch, *, c: float = 0.1) -> Batch:
    """g / (|g| + c) with the norm of the whole example (Lu & Song 2024).

    A published re-implementation takes the root mean square where this takes the norm: that is
    sqrt(d) normalised(g, c = c sqrt(d)) for d elements.
    """
    norm = jnp.sqrt(jnp.sum(jnp.square(g).reshape(len(g), -1), axis=1))
    return g / (expand(norm, g) + c)


def clipped(g: Batch, *, limit: float = 1.0) -> Batch:
    """Every element clipped to [-limit, limit], the alternative of the same paper."""
    return jnp.clip(g, -limit, limit)
