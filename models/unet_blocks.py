"""The block of EDM's SongUNet and its resampling filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .attention import Attention, SelfAttention
from .pixel_norm import pixel_norm

# EDM draws every layer xavier-uniform and then scales it: by 1, by 1e-5 where a branch should start
# near zero, and by sqrt(0.2) for the attention projection. `variance_scaling` takes the square.
plain_init = variance_scaling(1.0, "fan_avg", "uniform")
tiny_init = variance_scaling(1e-10, "fan_avg", "uniform")
qkv_init = variance_scaling(0.2, "fan_avg", "uniform")

Norm: TypeAlias = Callable[[Array, DTypeLike, str], Array]
"""norm(x, dtype, name) -> x normalised by a layer of the calling module"""


class UNetBlock(nn.Module):
    """Two convolutions with the noise embedding brought in between, and attention where a function is given.

    Sums are scaled by sqrt(1/2), so that a sum of two uncorrelated branches keeps its variance.

    Attributes:
        channels: channels of the output.
        resample: applied to both branches before their convolution; None keeps the resolution.
        attention: attention function of one head, or None for no attention.
        norm: `group_norm`, or another.
        double_norm: whether the embedding scales and shifts by vectors of unit mean square after the second
            norm (sCM), or is added before it (EDM).
        dropout: rate before the second convolution.
        deterministic: whether dropout is off.
        dtype: compute dtype; normalisation statistics are float32 in any case.
    """

    channels: int
    resample: Callable[[Array], Array] | None
    attention: Attention | None
    norm: Norm
    double_norm: bool
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

        def affine(features: int) -> Array:
            out = nn.Dense(features, kernel_init=plain_init, name="affine")(embedding)
            if second is not None:
                out += nn.Dense(features, kernel_init=plain_init, name="affine_s")(second)
            return out

        h = resample(nn.silu(self.norm(x, self.dtype, "norm0")))
        h = conv(self.channels, 3, self.dtype, "conv0")(h)
        if self.double_norm:
            scale, shift = double_norm(affine(2 * self.channels))
            h = self.norm(h, self.dtype, "norm1") * scale.astype(h.dtype) + shift.astype(h.dtype)
        else:
            shift = affine(self.channels)
            h = self.norm(h + shift[:, None, None, :].astype(h.dtype), self.dtype, "norm1")
        h = nn.silu(h)
        h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
        h = conv(self.channels, 3, self.dtype, "conv1", tiny_init)(h)

        skip = x
        if self.resample is not None or x.shape[-1] != self.channels:
            skip = conv(self.channels, 1, self.dtype, "skip")(resample(x))
        h = (h + skip) * math.sqrt(0.5)

        if self.attention is not None:
            tokens = self.norm(h, self.dtype, "norm2").reshape(h.shape[0], -1, self.channels)
            attend = SelfAttention(1, self.attention, qkv_init, tiny_init, dtype=self.dtype, name="self_attention")
            h = (h + attend(tokens).reshape(h.shape)) * math.sqrt(0.5)
        return h


def double_norm(
    out: Float32[Array, "batch twice_channels"],
) -> tuple[Float32[Array, "batch 1 1 channels"], Float32[Array, "batch 1 1 channels"]]:
    """Scale and shift of sCM's adaptive double normalisation, each of unit mean square (Lu and Song 2024).

    A linear layer gives them; the scale is one plus its output, so that small weights mean a scale of one.
    Around zero `pixel_norm` divides by almost nothing: its derivative is 1e4.
    """
    scale, shift = jnp.split(out[:, None, None, :], 2, axis=-1)
    return pixel_norm(1.0 + scale), pixel_norm(shift)


def group_norm(x: Array, dtype: DTypeLike, name: str, epsilon: float = 1e-6, least: int = 4) -> Array:
    """Group normalisation of the calling module: `least` channels a group or more, 32 groups at most."""
    groups = min(32, x.shape[-1] // least)
    return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)(x)


def conv(
    channels: int,
    kernel: int,
    dtype: DTypeLike,
    name: str,
    kernel_init: jax.nn.initializers.Initializer = plain_init,
    extra_padding: int = 0,
) -> nn.Conv:
    """Square convolution that keeps the resolution, or grows it by `extra_padding` on every side."""
    padding = kernel // 2 + extra_padding
    return nn.Conv(channels, (kernel, kernel), padding=padding, kernel_init=kernel_init, dtype=dtype, name=name)


def downsample(
    x: Float[Array, "batch height width channels"], taps: Sequence[int], padded: bool = False
) -> Float[Array, "batch half_height half_width channels"]:
    """Halve the resolution after a separable low-pass filter; `padded` says that x has its border already."""
    padding = 0 if padded else (len(taps) - 1) // 2
    return _filter(x, taps, stride=2, dilation=1, padding=padding, gain=1.0)


def upsample(
    x: Float[Array, "batch height width channels"], taps: Sequence[int]
) -> Float[Array, "batch double_height double_width channels"]:
    """Double the resolution: zeros in between, then the same filter; the transpose of `downsample` times 4."""
    return _filter(x, taps, stride=1, dilation=2, padding=len(taps) // 2, gain=4.0)


def _filter(x: Array, taps: Sequence[int], stride: int, dilation: int, padding: int, gain: float) -> Array:
    kernel = np.outer(taps, taps) * gain / np.sum(taps) ** 2
    channels = x.shape[-1]
    return jax.lax.conv_general_dilated(
        x,
        jnp.asarray(np.tile(kernel[:, :, None, None], (1, 1, 1, channels)), x.dtype),
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        lhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
