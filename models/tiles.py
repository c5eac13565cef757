"""Autoencoders on images larger than memory: tile by tile, blended where tiles overlap, as diffusers does."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def tiled(
    network: Callable[[Array], Array],
    x: Float[Array, "batch height width channels"],
    *,
    tile: int,
    overlap: int,
) -> Float[Array, "batch new_height new_width new_channels"]:
    """What a network makes of overlapping square tiles of its input, blended into one output.

    A tile begins every `tile - overlap` pixels, and those at the end may be smaller. From one tile to the next the
    weights go in a straight line over the overlap, first from top to bottom and then from left to right. An input
    that is no larger than a tile goes through the network as a whole.

    With Stable Diffusion's autoencoder diffusers takes tiles of 64 latents and 512 pixels, an overlap of a quarter:

        images = tiled(jax.jit(decode), latents, tile=64, overlap=16)
        moments = tiled(jax.jit(moments), images, tile=512, overlap=128)

    Normalisations see one tile at a time, so the result is not that of the whole image. The function itself need not
    be compiled: the network is, once for each of the at most four shapes of tiles.

    Args:
        network: reduces or enlarges images by one factor in both directions.
        x: its input.
        tile: side of a tile in pixels of the input.
        overlap: of neighbouring tiles, in pixels of the input.

    Raises:
        ValueError: an overlap that is negative or not smaller than a tile, or that is no whole number of pixels in the
            output.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap={overlap} must be 0 or more and less than tile={tile}")
    _, height, width, _ = x.shape
    if max(height, width) <= tile:
        return network(x)
    rows: list[Array] = []
    above: list[Array] = []
    for top in range(0, height, tile - overlap):
        blended: list[Array] = []
        for left in range(0, width, tile - overlap):
            part = x[:, top : top + tile, left : left + tile]
            made = network(part)
            factor = Fraction(made.shape[1], part.shape[1])
            extent, step = overlap * factor, (tile - overlap) * factor
            if extent.denominator > 1 or step.denominator > 1:
                raise ValueError(f"tile={tile} and overlap={overlap} times {factor} must be whole numbers of pixels")
            if above:
                made = _blend(above[len(blended)], made, int(extent), axis=1)
            if blended:
                made = _blend(blended[-1], made, int(extent), axis=2)
            blended.append(made)
        rows.append(jnp.concatenate([made[:, : int(step), : int(step)] for made in blended], axis=2))
        above = blended
    return jnp.concatenate(rows, axis=1)


def _blend(before: Array, after: Array, extent: int, axis: int) -> Array:
    """The second of two tiles, where they overlap passing over from the first."""
    extent = min(extent, before.shape[axis], after.shape[axis])
    shape = [1, 1, 1, 1]
    shape[axis] = extent
    weight = (jnp.arange(extent) / max(extent, 1)).reshape(shape)
    end, start, rest = (
        jnp.take(tile, rows, axis)
        for tile, rows in (
            (before, jnp.arange(before.shape[axis] - extent, before.shape[axis])),
            (after, jnp.arange(extent)),
            (after, jnp.arange(extent, after.shape[axis])),
        )
    )
    return jnp.concatenate([end * (1 - weight) + start * weight, rest], axis=axis)
