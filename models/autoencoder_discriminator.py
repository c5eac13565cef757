"""The network that tells an autoencoder's images from real ones, patch by patch (Isola et al. 2017)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.nn.initializers import normal
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .autoencoder import group_norm


class PatchDiscriminator(nn.Module):
    """Strided convolutions of 4 x 4 pixels and leaky rectifiers; a patch has 70 pixels a side with three layers.

    Published with batch normalisation, which makes examples depend on each other; here it is group normalisation.

    Attributes:
        channels: of the first layer; doubled by each of the next, up to eight times as many.
        layers: that halve the image: 3 in latent diffusion, at 256 pixels; with 1 a patch has 16 pixels a side, with 2
            it has 34.
        groups: of each normalisation.
        dtype: compute dtype of all but the last layer.
    """

    channels: int = 64
    layers: int = 3
    groups: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> tuple[Float32[Array, "batch rows columns 1"]]:
        """One head: how real each patch of images in [-1, 1] looks."""

        def conv(channels: int, stride: int, dtype: DTypeLike, name: str) -> nn.Conv:
            return nn.Conv(channels, (4, 4), stride, padding=1, kernel_init=normal(0.02), dtype=dtype, name=name)

        h = nn.leaky_relu(conv(self.channels, 2, self.dtype, "conv0")(x.astype(self.dtype)), 0.2)
        for i in range(1, self.layers + 1):
            stride = 1 if i == self.layers else 2
            h = conv(self.channels * min(2**i, 8), stride, self.dtype, f"conv{i}")(h)
            h = nn.leaky_relu(group_norm(h, self.groups, self.dtype, f"norm{i}"), 0.2)
        return (conv(1, 1, jnp.float32, f"conv{self.layers + 1}")(h),)
