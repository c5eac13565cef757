"""DINOv2's vision transformer, whose class token is the feature of FD-DINOv2 (Oquab et al. 2023; Stein et al. 2023).

Everything is float32 at the highest precision. The form without registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import Precision
from jaxtyping import Float, Float32, Num

from .attention import SelfAttention
from .dit import Size, patchify

Resample: TypeAlias = Callable[[Array, int, int], Array]
"""(table [side, side, width], rows, columns) -> [rows, columns, width]: positions of another grid of patches."""

DINOV2_SIZES = {
    "S": Size(width=384, depth=12, heads=6),
    "B": Size(width=768, depth=12, heads=12),
    "L": Size(width=1024, depth=24, heads=16),
    "g": Size(width=1536, depth=40, heads=24),
}
"""The published sizes; g alone is gated: `DINOv2(*DINOV2_SIZES["g"], gated=True)`."""

# ImageNet's colours on the scale of [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ---- Positions -------------------------------------------------------------------------------------------------------


def to_scale(table: Array, rows: int, columns: int) -> Array:
    """Bicubic, as Meta's code has it: the grid is taken to be a tenth of a patch larger than it is."""
    return _resampled(table, _bicubic(len(table), rows, rows + 0.1), _bicubic(len(table), columns, columns + 0.1))


def to_size(table: Array, rows: int, columns: int) -> Array:
    """Bicubic from border to border, not smoothed, as transformers has it."""
    return _resampled(table, _bicubic(len(table), rows, rows), _bicubic(len(table), columns, columns))


def smoothed(table: Array, rows: int, columns: int) -> Array:
    """Bicubic with another kernel, and smoothed where the grid is coarser than the table: timm's."""
    return jax.image.resize(table, (rows, columns, table.shape[-1]), "bicubic", antialias=True)


def _bicubic(size: int, new_size: int, extent: float) -> Float32[np.ndarray, "new_size size"]:
    """Weights of the numbers in a row for each number of one resampled by `extent / size`, as PyTorch has them.

    Borders are repeated. The kernel is Keys' with the parameter -3/4.
    """
    source = (np.arange(new_size) + 0.5) * size / extent - 0.5
    first = np.floor(source).astype(int) - 1
    weights = np.zeros((new_size, size))
    for number in range(4):
        x = np.abs(source - (first + number))
        near, far = ((1.25 * x - 2.25) * x) * x + 1, ((-0.75 * x + 3.75) * x - 6) * x + 3
        np.add.at(weights, (np.arange(new_size), (first + number).clip(0, size - 1)), np.where(x <= 1, near, far))
    return weights.astype(np.float32)


def _resampled(table: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    return jnp.einsum("ri,cj,ijd->rcd", rows, columns, table, precision=Precision.HIGHEST)


# ---- The network -----------------------------------------------------------------------------------------------------


class DINOv2(nn.Module):
    """Images to tokens, the class token first.

    Attributes:
        width: features of a token.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in pixels.
        table: side of the grid that there are positions for; 37 is that of 518 pixels.
        gated: whether the MLPs are gated by SiLU, as those of size g are, or have an exact GELU.
        resample: positions for images of another size; libraries differ, and Meta's is what was published.
    """

    width: int
    depth: int
    heads: int
    patch: int = 14
    table: int = 37
    gated: bool = False
    resample: Resample = to_scale

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float32[Array, "batch tokens features"]:
        """Tokens after the last norm of images of ImageNet's colours at about unit size, see `normalised`.

        Raises:
            ValueError: sides that are no multiples of the patch.
        """
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"image of {height}x{width} pixels is not divisible into patches of {self.patch}")
        rows, columns = height // self.patch, width // self.patch
        patches = patchify(images.astype(jnp.float32), self.patch)
        h = nn.Dense(self.width, precision=Precision.HIGHEST, name="embed")(patches)

        normal = nn.initializers.normal(0.02)
        positions = self.param("positions", normal, (self.table**2 + 1, self.width))
        grid = positions[1:]
        if (rows, columns) != (self.table, self.table):
            grid = self.resample(grid.reshape(self.table, self.table, self.width), rows, columns)
            grid = grid.reshape(rows * columns, self.width)
        start = self.param("class_token", normal, (self.width,)) + positions[0]
        h = jnp.concatenate([jnp.broadcast_to(start, (batch, 1, self.width)), h + grid], axis=1)
        for i in range(self.depth):
            h = Block(self.heads, self.gated, name=f"block{i}")(h)
        return layer_norm("norm")(h)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and scaled feature by feature before it is added."""

    heads: int
    gated: bool

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the block."""
        width = h.shape[-1]
        scales = [self.param(f"scale{i}", nn.initializers.constant(1e-5), (width,)) for i in range(2)]
        attend = SelfAttention(self.heads, attention, precision=Precision.HIGHEST, name="self_attention")
        h = h + scales[0] * attend(layer_norm("norm0")(h))
        return h + scales[1] * self.mlp(layer_norm("norm1")(h))

    def mlp(self, h: Array) -> Array:
        """Two layers; a gated MLP has two thirds of the hidden features, in multiples of 8, and as many gates."""
        width = h.shape[-1]
        hidden = -(-(8 * width // 3) // 8) * 8 if self.gated else 4 * width
        inner = nn.Dense((1 + self.gated) * hidden, precision=Precision.HIGHEST, name="mlp0")(h)
        if self.gated:
            gate, value = jnp.split(inner, 2, axis=-1)
            inner = nn.silu(gate) * value
        else:
            inner = nn.gelu(inner, approximate=False)
        return nn.Dense(width, precision=Precision.HIGHEST, name="mlp1")(inner)


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation of the calling module."""
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)


def attention(q: Array, k: Array, v: Array) -> Array:
    """Softmax attention at the highest precision."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q / q.shape[-1] ** 0.5, k, precision=Precision.HIGHEST)
    return jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits), v, precision=Precision.HIGHEST)


def normalised(images: Num[Array, "batch height width channels"]) -> Float32[Array, "batch height width 3"]:
    """Images on the scale of 0 to 255 as the network takes them; one channel is repeated.

    Raises:
        ValueError: neither 3 channels nor 1.
    """
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"DINOv2 takes images of 3 channels, or 1 that is repeated; got {images.shape[-1]}")
    return (images.astype(jnp.float32) / 255 - jnp.asarray(MEAN)) / jnp.asarray(STD)
