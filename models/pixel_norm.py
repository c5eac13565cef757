"""Pixel normalisation: vectors of unit mean square."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .net import at_least_float32


def pixel_norm(a: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Divide by the root mean square over `axis`, at least 1e-4, in float32 (Lu and Song 2024).

    Smooth, and zero at zero, where its derivative is 1e4.
    """
    a = at_least_float32(a)
    return a * jax.lax.rsqrt(jnp.mean(a * a, axis=axis, keepdims=True) + 1e-8)
