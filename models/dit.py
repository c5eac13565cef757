"""Diffusion transformer with adaLN-zero blocks (Peebles and Xie 2022; SiT, Ma et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .attention import Attention, SelfAttention, softmax_attention
from .conditioning import Conditioning
from .embeddings import grid_positions
from .narrow import narrowed
from .net import check_conditions
from .pixel_norm import pixel_norm
from .remat import Remat, keep_all
from .spread import keep_examples

xavier, zeros = nn.initializers.xavier_uniform(), nn.initializers.zeros


class Size(NamedTuple):
    """Shape of a published transformer."""

    width: int
    depth: int
    heads: int


SIZES = {
    "S": Size(width=384, depth=12, heads=6),
    "B": Size(width=768, depth=12, heads=12),
    "L": Size(width=1024, depth=24, heads=16),
    "XL": Size(width=1152, depth=28, heads=16),
}
"""The sizes of DiT (table 1 of the paper). A name such as XL/2 adds the patch size."""


class DiT(nn.Module):
    """Transformer over image patches, modulated by time and label; at initialisation its output is zero.

    Parameters are float32. The blocks are one scan, so compile time does not grow with depth and the
    parameters of all blocks lie stacked on a leading axis of length `depth`.

    Attributes:
        patch: side of a square patch in pixels; divides height and width of the image.
        width: features of a token; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of a block's MLP over `width`.
        num_classes: 0 for an unconditional network. Otherwise labels lie in [0, num_classes], and
            `num_classes` itself is the null class.
        second_time: whether the network takes a second time s.
        guided: whether the network takes a guidance scale w.
        double_norm: give the modulating scales and shifts unit mean square over the features (sCM).
        dropout: rate on the output of each attention and MLP branch while training; key `dropout`.
        time_scale: factor on t and s before their embedding (SiT 1; DiT's integer steps 1000).
        remat: what of each block the backward pass computes again, one of remat.py's.
        unroll: blocks in one iteration of the scan; more of them compile longer and, on a CPU, run faster.
        dtype: compute dtype of the blocks; embeddings, modulation and the last layer stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D].
        out_channels: of the output; 0 for those of x.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    num_classes: int = 0
    second_time: bool = False
    guided: bool = False
    double_norm: bool = False
    dropout: float = 0.0
    time_scale: float = 1.0
    remat: Remat = keep_all
    unroll: int = 1
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention
    out_channels: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None = None,
        s: Float[Array, " batch"] | None = None,
        w: Float[Array, " batch"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[Array, "batch height width out_channels"]:
        """Evaluate the network.

        Raises:
            ValueError: there are no blocks, the image is not divisible into patches, `width` not into heads, or a
                condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        _, height, width, channels = x.shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"image of {height}x{width} pixels is not divisible into patches of {self.patch}")
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not divisible by heads={self.heads}")

        conditioning = Conditioning(self.width, self.num_classes, self.time_scale, name="conditioning")
        condition = nn.silu(conditioning(t, labels, s, w))
        # A convolution whose stride is its window, written as the matrix product that it is.
        h = nn.Dense(self.width, kernel_init=xavier, dtype=self.dtype, name="embed")(patchify(x, self.patch))
        h += grid_positions(height // self.patch, width // self.patch, self.width).astype(h.dtype)

        # Nothing can be merged across iterations of a scan: where each is a block, the barrier of remat only costs.
        block = self.remat(Block, prevent_cse=self.unroll > 1)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=self.unroll,
        )
        if not self.is_initializing():
            blocks = narrowed(blocks, self.dtype, but=("modulation",))
        h, _ = blocks(
            self.heads,
            self.mlp_ratio,
            self.double_norm,
            self.dropout,
            not train,
            self.dtype,
            self.attention,
            name="blocks",
        )(h, condition)

        shift, scale = _modulation(condition, 2, self.width, self.double_norm)
        h = _modulate(h, shift, scale, self.double_norm)
        channels = self.out_channels or channels
        tokens = nn.Dense(self.patch**2 * channels, kernel_init=zeros, name="final")(h)
        return unpatchify(tokens, self.patch, height, width)


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition; identity at initialisation."""

    heads: int
    mlp_ratio: int
    double_norm: bool
    dropout: float
    deterministic: bool
    dtype: DTypeLike
    attention: Attention

    @nn.compact
    def __call__(
        self, h: Float[Array, "batch length width"], condition: Float32[Array, "batch width"]
    ) -> tuple[Float[Array, "batch length width"], None]:
        """Advance the tokens by one block; the pair is the carry and the output of a scan."""
        width = h.shape[-1]
        modulation = _modulation(condition, 6, width, self.double_norm)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = modulation
        drop = nn.Dropout(self.dropout, deterministic=self.deterministic)

        branch = _modulate(h, shift_attention, scale_attention, self.double_norm).astype(self.dtype)
        branch = SelfAttention(self.heads, self.attention, dtype=self.dtype, name="self_attention")(branch)
        h = keep_examples(h + gate_attention.astype(self.dtype) * drop(branch))

        branch = _modulate(h, shift_mlp, scale_mlp, self.double_norm).astype(self.dtype)
        branch = nn.Dense(self.mlp_ratio * width, kernel_init=xavier, dtype=self.dtype, name="mlp0")(branch)
        branch = keep_examples(branch)
        branch = nn.Dense(width, kernel_init=xavier, dtype=self.dtype, name="mlp1")(nn.gelu(branch))
        return keep_examples(h + gate_mlp.astype(self.dtype) * drop(branch)), None


def _modulation(condition: Array, parts: int, width: int, double_norm: bool) -> list[Array]:
    """Vectors [B, 1, width] from a linear layer of the calling module, zero at first but for normalised shifts."""
    bias_init = _unit_shift_bias(parts) if double_norm else zeros
    out = nn.Dense(parts * width, kernel_init=zeros, bias_init=bias_init, name="modulation")(condition)
    return jnp.split(out[:, None, :], parts, axis=-1)


def _unit_shift_bias(parts: int) -> Callable[..., Array]:
    """Normal draws for the shifts, which lead each of the groups (shift, scale[, gate]), and zeros for the rest.

    A normalised shift has unit size however small its vector is. At zero the derivative of `pixel_norm` is
    1e4 and one step of training would turn nothing into a whole shift; a random one is as good as none, since
    it is the same at every t and a linear layer follows.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        shift = jnp.arange(parts) % 3 == 0
        draws = jax.random.normal(key, (parts, shape[0] // parts), dtype)
        return jnp.where(shift[:, None], draws, 0).reshape(shape)

    return init


def _modulate(h: Array, shift: Array, scale: Array, double_norm: bool) -> Array:
    """Layer norm without parameters, then an affine map given from outside; float32."""
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False)
    scale = 1.0 + scale
    if double_norm:
        scale, shift = pixel_norm(scale), pixel_norm(shift)
    return norm(h.astype(jnp.float32)) * scale + shift


def patchify(x: Float[Array, "batch height width channels"], patch: int) -> Float[Array, "batch length features"]:
    """Cut images into square patches in row-major order, each flattened as (row, column, channel)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def unpatchify(
    tokens: Float[Array, "batch length features"], patch: int, height: int, width: int
) -> Float[Array, "batch height width channels"]:
    """Invert `patchify`; `height` and `width` are those of the image."""
    batch = tokens.shape[0]
    x = tokens.reshape(batch, height // patch, width // patch, patch, patch, -1)
    return x.swapaxes(2, 3).reshape(batch, height, width, -1)
