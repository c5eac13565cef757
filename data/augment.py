"""What happens to images on the device: ranges and flips, all of them free of state and fit for `jax.jit`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key, Shaped, UInt8


def to_model_range(image: UInt8[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """0 .. 255 becomes [-1, 1]: x / 127.5 - 1."""
    # Written as a difference first: compiled, x / 127.5 - 1 gives 1.0000001 for 255.
    return (image.astype(jnp.float32) - 127.5) / 127.5


def from_model_range(image: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """[-1, 1] becomes 0 .. 255, rounded; values outside are clipped.

    NaN has no grey level: refuse it on the host before, compiled code cannot.
    """
    return jnp.round((jnp.clip(image.astype(jnp.float32), -1, 1) + 1) * 127.5).astype(jnp.uint8)


def horizontal_flip(
    key: Key[Array, ""], image: Shaped[Array, "batch height width channels"]
) -> Shaped[Array, "batch height width channels"]:
    """Mirrors each image left to right with probability 1/2, independently."""
    flip = jax.random.bernoulli(key, 0.5, (image.shape[0], 1, 1, 1))
    return jnp.where(flip, image[:, :, ::-1], image)
