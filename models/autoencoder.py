"""The autoencoder whose latents are Gaussian: what latent diffusion takes its data from (Rombach et al. 2022).

It has the form of Stable Diffusion's: residual blocks at each resolution, halved by strided convolutions and doubled
by repeated pixels, and twice as many numbers at the bottleneck as latents have, their mean and log variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .attention import Attention, SelfAttention, softmax_attention
from .unet_blocks import conv

LOGVAR_RANGE = (-30.0, 20.0)

# What PyTorch does by default, and what the published autoencoders were trained from.
torch_init = variance_scaling(1 / 3, "fan_in", "uniform")


class Autoencoder(nn.Module):
    """Images to the mean and log variance of their latents, and latents to images; the defaults are Stable Diffusion's.

    Call its methods by `module.apply(variables, x, method="encode")` and `method="decode"`. Parameters lie under
    `encoder` and `decoder`, and neither method needs those of the other.

    Attributes:
        channels: channels at full resolution.
        multipliers: of the channels at each resolution; each halves the one before.
        blocks: residual blocks at each resolution of the encoder; the decoder has one more.
        latent_channels: channels of a latent.
        image_channels: channels of an image.
        groups: groups of each normalisation, or as many as there are channels if these are fewer.
        attention: one head of attention at the lowest resolution, or None for none.
        dtype: compute dtype of the body; normalisation statistics and the last layers are float32 in any case.
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 4, 4)
    blocks: int = 2
    latent_channels: int = 4
    image_channels: int = 3
    groups: int = 32
    attention: Attention | None = softmax_attention
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:  # noqa: D102
        widths = tuple(self.channels * multiplier for multiplier in self.multipliers)
        shared = (self.groups, self.attention, self.dtype)
        self.encoder = Encoder(widths, self.blocks, self.latent_channels, *shared)
        self.decoder = Decoder(widths, self.blocks + 1, self.image_channels, *shared)

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float32[Array, "batch height width channels"]:
        """The images that the means of their latents stand for."""
        return self.decode(self.encode(x)[0])

    def encode(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float32[Array, "batch rows columns latents"], Float32[Array, "batch rows columns latents"]]:
        """Mean and log variance of the latents of images in [-1, 1]; the log variance is cut off at -30 and 20.

        Raises:
            ValueError: sides that cannot be halved often enough, or another number of channels.
        """
        _, height, width, channels = x.shape
        factor = 2 ** (len(self.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(f"image of {height}x{width} pixels is not divisible by {factor}, the pixels of a latent")
        if channels != self.image_channels:
            raise ValueError(f"the autoencoder takes images of {self.image_channels} channels, got {channels}")
        mean, logvar = jnp.split(self.encoder(x), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, z: Float[Array, "batch rows columns latents"]) -> Float32[Array, "batch height width channels"]:
        """Images of latents as `encode` gives them, without a scale; they may leave [-1, 1] a little."""
        if z.shape[-1] != self.latent_channels:
            raise ValueError(f"the autoencoder takes latents of {self.latent_channels} channels, got {z.shape[-1]}")
        return self.decoder(z)


class Encoder(nn.Module):
    """Images to 2 x latent_channels numbers for each latent pixel."""

    widths: Sequence[int]
    blocks: int
    latent_channels: int
    groups: int
    attention: Attention | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Means, then log variances, not yet cut off."""
        h = conv(self.widths[0], 3, self.dtype, "conv_in", torch_init)(x.astype(self.dtype))
        for level, width in enumerate(self.widths):
            if level:
                h = halve(h, self.dtype, f"down{level}")
            for i in range(self.blocks):
                h = ResidualBlock(width, self.groups, self.dtype, name=f"level{level}_block{i}")(h)
        h = Middle(self.groups, self.attention, self.dtype, name="middle")(h)
        h = nn.silu(group_norm(h, self.groups, jnp.float32, "norm_out"))
        h = conv(2 * self.latent_channels, 3, jnp.float32, "conv_out", torch_init)(h)
        return conv(2 * self.latent_channels, 1, jnp.float32, "moments", torch_init)(h)


class Decoder(nn.Module):
    """Latents to images."""

    widths: Sequence[int]
    blocks: int
    image_channels: int
    groups: int
    attention: Attention | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Images."""
        h = conv(z.shape[-1], 1, self.dtype, "latents", torch_init)(z.astype(self.dtype))
        h = conv(self.widths[-1], 3, self.dtype, "conv_in", torch_init)(h)
        h = Middle(self.groups, self.attention, self.dtype, name="middle")(h)
        for level, width in reversed(list(enumerate(self.widths))):
            for i in range(self.blocks):
                h = ResidualBlock(width, self.groups, self.dtype, name=f"level{level}_block{i}")(h)
            if level:
                h = conv(width, 3, self.dtype, f"up{level}", torch_init)(h.repeat(2, axis=1).repeat(2, axis=2))
        h = nn.silu(group_norm(h, self.groups, jnp.float32, "norm_out"))
        return conv(self.image_channels, 3, jnp.float32, "conv_out", torch_init)(h)


class ResidualBlock(nn.Module):
    """Two convolutions, each after a norm and SiLU, added to the input."""

    channels: int
    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the block."""
        h = x
        for i in range(2):
            h = nn.silu(group_norm(h, self.groups, self.dtype, f"norm{i}"))
            h = conv(self.channels, 3, self.dtype, f"conv{i}", torch_init)(h)
        skip = x
        if x.shape[-1] != self.channels:
            skip = conv(self.channels, 1, self.dtype, "skip", torch_init)(x)
        return skip + h


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    groups: int
    attention: Attention | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the blocks."""
        channels = h.shape[-1]
        h = ResidualBlock(channels, self.groups, self.dtype, name="block0")(h)
        if self.attention is not None:
            tokens = group_norm(h, self.groups, self.dtype, "norm").reshape(h.shape[0], -1, channels)
            attend = SelfAttention(1, self.attention, torch_init, torch_init, dtype=self.dtype, name="self_attention")
            h = h + attend(tokens).reshape(h.shape)
        return ResidualBlock(channels, self.groups, self.dtype, name="block1")(h)


def group_norm(x: Array, groups: int, dtype: DTypeLike, name: str) -> Array:
    """Group normalisation of the calling module, its statistics in float32."""
    groups = min(groups, x.shape[-1])
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, dtype=dtype, name=name)(x)


def halve(x: Array, dtype: DTypeLike, name: str) -> Array:
    """Strided convolution of the calling module; zeros stand at the end of rows and columns alone, as published."""
    padding = ((0, 1), (0, 1))
    return nn.Conv(x.shape[-1], (3, 3), (2, 2), padding, kernel_init=torch_init, dtype=dtype, name=name)(x)
