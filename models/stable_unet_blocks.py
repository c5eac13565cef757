"""The blocks of Stable Diffusion's U-Net: a residual one, and a transformer one that looks at text."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .adm_blocks import conv, dense, plain_init, uniform_bias, zeros
from .attention import Attention

MLP_RATIO = 4


class ResidualBlock(nn.Module):
    """Two convolutions with the embedding of time added in between; the second one starts at zero.

    Attributes:
        channels: channels of the output.
        groups: groups of each normalisation.
        dropout: rate before the second convolution.
        deterministic: whether dropout is off.
        dtype: compute dtype; normalisation statistics are float32 in any case.
    """

    channels: int
    groups: int
    dropout: float
    deterministic: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], embedding: Float32[Array, "batch embedding"]
    ) -> Float[Array, "batch height width new_channels"]:
        """Apply the block."""
        h = nn.silu(group_norm(x, self.groups, 1e-5, self.dtype, "norm0"))
        h = conv(h, self.channels, 3, self.dtype, "conv0")
        h += dense(embedding, self.channels, "affine")[:, None, None, :].astype(h.dtype)
        h = nn.silu(group_norm(h, self.groups, 1e-5, self.dtype, "norm1"))
        h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
        h = conv(h, self.channels, 3, self.dtype, "conv1", zeros)
        skip = x
        if x.shape[-1] != self.channels:
            skip = conv(x, self.channels, 1, self.dtype, "skip")
        return skip + h


class TextTransformer(nn.Module):
    """Attention among pixels, then to text, then a gated MLP, all between two linear layers; the last starts at zero.

    Attributes:
        heads: attention heads; they divide the channels.
        groups: groups of the normalisation of the image.
        attention: attention function.
        dtype: compute dtype; normalisation statistics are float32 in any case.
    """

    heads: int
    groups: int
    attention: Attention
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], text: Float[Array, "batch length features"]
    ) -> Float[Array, "batch height width channels"]:
        """Apply the block; the text is as the text encoder gives it, without a norm."""
        batch, height, width, channels = x.shape
        # A linear layer here is the 1 x 1 convolution of SD 1.5: there is one network for both layouts.
        h = group_norm(x, self.groups, 1e-6, self.dtype, "norm").reshape(batch, height * width, channels)
        h = linear(h, channels, self.dtype, "proj_in")

        tokens = self._layer_norm("norm0")(h)
        h += MultiHeadAttention(self.heads, self.attention, self.dtype, name="self_attention")(tokens, tokens)

        tokens = self._layer_norm("norm1")(h)
        h += MultiHeadAttention(self.heads, self.attention, self.dtype, name="cross_attention")(tokens, text)

        hidden = linear(self._layer_norm("norm2")(h), 2 * MLP_RATIO * channels, self.dtype, "mlp0")
        hidden, gate = jnp.split(hidden, 2, axis=-1)
        h += linear(hidden * nn.gelu(gate, approximate=False), channels, self.dtype, "mlp1")

        return x + linear(h, channels, self.dtype, "proj_out", zeros).reshape(x.shape)

    def _layer_norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name=name)


class MultiHeadAttention(nn.Module):
    """Attention from tokens to a context, which may be the tokens; queries, keys and values have no bias."""

    heads: int
    attention: Attention
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "batch length channels"], context: Float[Array, "batch keys features"]
    ) -> Float[Array, "batch length channels"]:
        """Attend, then project."""
        channels = tokens.shape[-1]

        def split(source: Array, name: str) -> Array:
            layer = nn.Dense(channels, use_bias=False, kernel_init=plain_init, dtype=self.dtype, name=name)
            return layer(source).reshape(*source.shape[:2], self.heads, channels // self.heads)

        out = self.attention(split(tokens, "q"), split(context, "k"), split(context, "v"))
        return linear(out.reshape(tokens.shape), channels, self.dtype, "out")


def linear(x: Array, features: int, dtype: DTypeLike, name: str, init: Callable[..., Array] | None = None) -> Array:
    """Linear layer of the calling module; `init` is that of weights and biases."""
    bias_init = init or uniform_bias(x.shape[-1])
    return nn.Dense(features, kernel_init=init or plain_init, bias_init=bias_init, dtype=dtype, name=name)(x)


def group_norm(x: Array, groups: int, epsilon: float, dtype: DTypeLike, name: str) -> Array:
    """Group normalisation of the calling module, its statistics in float32."""
    return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)(x)


def halve(x: Array, dtype: DTypeLike, name: str) -> Array:
    """Strided convolution of the calling module, with a border of zeros on every side."""
    channels = x.shape[-1]
    layer = nn.Conv(
        channels,
        (3, 3),
        (2, 2),
        padding=1,
        kernel_init=plain_init,
        bias_init=uniform_bias(9 * channels),
        dtype=dtype,
        name=name,
    )
    return layer(x)
