"""The block of ADM's U-Net: its embedding scales and shifts, and resampling has no layer of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .attention import Attention, SelfAttention
from .unet_blocks import Norm, double_norm

# The default of PyTorch, which ADM kept: weights and biases uniform within 1 / sqrt(fan in). The second
# convolution of a block and the projection of its attention start at zero.
plain_init = variance_scaling(1 / 3, "fan_in", "uniform")
zeros = nn.initializers.zeros


class ADMBlock(nn.Module):
    """Two convolutions modulated in between, and attention where it has heads; no sum is scaled.

    Attributes:
        channels: channels of the output.
        resample: applied before the first convolution and to the skip; None keeps the resolution.
        heads: attention heads, 0 for no attention.
        attention: attention function.
        adaptive_scale: whether the embedding scales and shifts after the second norm, or is added before it.
        double_norm: whether scale and shift are vectors of unit mean square (sCM); needs `adaptive_scale`.
        norm: normalisation, `group_norm` or another.
        dropout: rate before the second convolution.
        deterministic: whether dropout is off.
        dtype: compute dtype; normalisation statistics are float32 in any case.
    """

    channels: int
    resample: Callable[[Array], Array] | None
    heads: int
    attention: Attention
    adaptive_scale: bool
    double_norm: bool
    norm: Norm
    dropout: float
    deterministic: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        embedding: Float32[Array, "batch embedding"],
        second: Float32[Array, "batch embedding"] | None = None,
    ) -> Float[Array, "batch new_height new_width new_channels"]:
        """Apply the block; `second` is brought in beside the embedding, by a layer of its own."""
        resample = self.resample or (lambda h: h)

        h = resample(nn.silu(self.norm(x, self.dtype, "norm0")))
        h = conv(h, self.channels, 3, self.dtype, "conv0")
        h = nn.silu(self._modulated_norm(h, embedding, second))
        h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
        h = conv(h, self.channels, 3, self.dtype, "conv1", zeros)

        skip = resample(x)
        if x.shape[-1] != self.channels:
            skip = conv(skip, self.channels, 1, self.dtype, "skip")
        h += skip

        if self.heads:
            tokens = self.norm(h, self.dtype, "norm2").reshape(h.shape[0], -1, self.channels)
            attend = SelfAttention(self.heads, self.attention, plain_init, zeros, self.dtype, name="self_attention")
            h += attend(tokens).reshape(h.shape)
        return h

    def _modulated_norm(self, h: Array, embedding: Array, second: Array | None) -> Array:
        """Normalise and modulate in the one of three ways that the network was built with."""
        parts = 1 + self.adaptive_scale
        out = dense(embedding, parts * self.channels, "affine")
        if second is not None:
            out += dense(second, parts * self.channels, "affine_s")
        if not self.adaptive_scale:
            shift = out
            return self.norm(h + shift[:, None, None, :].astype(h.dtype), self.dtype, "norm1")
        if self.double_norm:
            scale, shift = double_norm(out)
        else:
            scale, shift = jnp.split(out[:, None, None, :], 2, axis=-1)
            scale += 1.0
        return self.norm(h, self.dtype, "norm1") * scale.astype(h.dtype) + shift.astype(h.dtype)


def conv(
    x: Array,
    channels: int,
    kernel: int,
    dtype: DTypeLike,
    name: str,
    init: Callable[..., Array] | None = None,
    stride: int = 1,
) -> Array:
    """Square convolution of the calling module that divides the resolution by its stride.

    `init` is that of weights and biases.
    """
    layer = nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        kernel_init=init or plain_init,
        bias_init=init or uniform_bias(kernel * kernel * x.shape[-1]),
        dtype=dtype,
        name=name,
    )
    return layer(x)


def dense(x: Array, features: int, name: str) -> Array:
    """Linear layer of the calling module in float32."""
    return nn.Dense(features, kernel_init=plain_init, bias_init=uniform_bias(x.shape[-1]), name=name)(x)


def uniform_bias(fan_in: int) -> Callable[..., Array]:
    """Uniform numbers within 1 / sqrt(fan in), which cannot be told from the shape of a bias."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
