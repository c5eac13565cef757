"""UViT: a U-Net with a transformer at its lowest resolution (Hoogeboom, Heek and Salimans 2023, simple diffusion)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .attention import Attention, softmax_attention
from .conditioning import Conditioning
from .narrow import narrowed
from .net import check_conditions
from .remat import Remat, keep_all
from .unet_blocks import group_norm
from .uvit_blocks import ResidualBlock, TransformerBlock, zeros


class UViT(nn.Module):
    """Residual blocks at high resolutions and transformer blocks at the lowest; at initialisation its output is zero.

    Parameters are float32. The transformer blocks are one scan, so compile time does not grow with depth and their
    parameters lie stacked on a leading axis of length `depth`. The position embedding is learned: a network
    takes images of the size that it was initialised with.

    The defaults are the small network of Multistep Consistency Models for ImageNet-64 (Heek et al. 2024), which has
    394 M parameters as published and 395.1 M here. There is no official code. The blocks and the skips are those of
    simple diffusion's pseudo-code, which we know at second hand, and the embedding that of the authors' earlier U-Net
    (Salimans and Ho 2022). Our reading: the 3x3 kernels of the convolutions that resample, one after a mean over 2x2
    pixels and the other before a repetition, the kinds of norms, and the four heads. The count supports it: 1x1 kernels
    would make 384.7 M, and norms modulated in place of the hidden features 328.0 M. It would be met as well by
    concatenated skips with 1x1 kernels, 395.5 M.

    The large network of 1.23 B is not offered, since its shape is not known and no simple doubling has its count: twice
    the width makes 1.14 B, twice the depth 0.73 B, and twice all channels 1.28 B.

    Attributes:
        channels: channels before the multiplier.
        multipliers: factor on `channels` at each resolution with residual blocks, highest first. Below the last of
            them, at half its resolution, is the transformer.
        blocks: residual blocks per resolution on the way down, and as many on the way up.
        width: features of a token; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        embedding_width: features of the embedding of time and label.
        num_classes: 0 for an unconditional network. Otherwise labels lie in [0, num_classes], and
            `num_classes` itself is the null class.
        second_time: whether the network takes a second time s.
        guided: whether the network takes a guidance scale w.
        dropout: rate in transformer blocks while training, and there alone; key `dropout`.
        time_scale: factor on t and s before their embedding.
        remat: what of each block the backward pass computes again, one of remat.py's.
        dtype: compute dtype of the blocks; embeddings and the last convolution stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D].
    """

    channels: int = 256
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 3
    width: int = 1024
    depth: int = 16
    heads: int = 4
    embedding_width: int = 1024
    num_classes: int = 0
    second_time: bool = False
    guided: bool = False
    dropout: float = 0.0
    time_scale: float = 1.0
    remat: Remat = keep_all
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention

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
    ) -> Float32[Array, "batch height width channels"]:
        """Evaluate the network.

        Raises:
            ValueError: the image cannot be halved often enough, `width` not be divided into heads, or a
                condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        self._check(x)
        conditioning = Conditioning(self.embedding_width, self.num_classes, self.time_scale, name="conditioning")
        embedding = nn.silu(conditioning(t, labels, s, w))
        residual_block = self.remat(ResidualBlock)
        channels = [*(self.channels * multiplier for multiplier in self.multipliers), self.width]
        levels = range(len(self.multipliers))

        h = self._conv(channels[0], "in_conv")(x.astype(self.dtype))
        skips = []
        for level in levels:
            for i in range(self.blocks):
                h = residual_block(self.dtype, name=f"down{level}_block{i}")(h, embedding)
                skips.append(h)
            h = self._conv(channels[level + 1], f"down{level}_conv")(nn.avg_pool(h, (2, 2), (2, 2)))

        h = self._transform(h, embedding, train)

        for level in reversed(levels):
            h = self._conv(channels[level], f"up{level}_conv")(h)
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
            for i in range(self.blocks):
                h = residual_block(self.dtype, name=f"up{level}_block{i}")(h, embedding, skips.pop())

        h = nn.silu(group_norm(h, jnp.float32, "out_norm"))
        return nn.Conv(x.shape[-1], (3, 3), kernel_init=zeros, name="out_conv")(h)

    def _transform(self, h: Array, embedding: Array, train: bool) -> Array:
        """The transformer over the positions of the lowest resolution."""
        positions = self.param("positions", nn.initializers.normal(0.01), h.shape[1:])
        tokens = (h + positions.astype(h.dtype)).reshape(h.shape[0], -1, self.width)
        # Inside a scan nothing can be merged across iterations, so the barrier of remat only costs.
        block = self.remat(TransformerBlock, prevent_cse=False)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        if not self.is_initializing():
            blocks = narrowed(blocks, self.dtype, but=("norm0", "norm1", "norm_q", "norm_k", "affine"))
        middle = blocks(self.heads, self.dropout, not train, self.dtype, self.attention, name="transformer")
        tokens, _ = middle(tokens, embedding)
        return tokens.reshape(h.shape)

    def _conv(self, channels: int, name: str) -> nn.Conv:
        return nn.Conv(channels, (3, 3), dtype=self.dtype, name=name)

    def _check(self, x: Array) -> None:
        _, height, width, _ = x.shape
        factor = 2 ** len(self.multipliers)
        if height % factor or width % factor:
            raise ValueError(f"image of {height}x{width} pixels is not divisible by {factor}, the coarsest scale")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not divisible by heads={self.heads}")
