"""A discriminator that judges the features of another network: heads on them, and nothing else that is trained."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .adm_blocks import conv
from .stable_unet_blocks import group_norm


class FeatureHeads(nn.Module):
    """Several heads on each map of features: two convolutions, the second one added, then a number for every pixel.

    Source: the code of Wang et al. 2024 (Phased Consistency Models), on the blocks of Stable Diffusion's U-Net.

    Attributes:
        heads: of each map.
        groups: of each normalisation; they divide the channels of every map.
        dtype: compute dtype of all but the last layer.
    """

    heads: int = 4
    groups: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch _height _width _channels"]]
    ) -> tuple[Float32[Array, "batch _height _width 1"], ...]:
        """How real each pixel of each map looks to each of its heads, `heads` for the first map, then for the next."""
        return tuple(self._head(x, f"map{i}_head{j}") for i, x in enumerate(features) for j in range(self.heads))

    def _head(self, x: Array, name: str) -> Array:
        channels = x.shape[-1]
        h = x.astype(self.dtype)
        for i in range(2):
            skip = h if i else 0.0
            h = conv(h, channels, 3, self.dtype, f"{name}_conv{i}")
            h = nn.leaky_relu(group_norm(h, self.groups, 1e-5, self.dtype, f"{name}_norm{i}"), 0.01) + skip
        return conv(h.astype(jnp.float32), 1, 1, jnp.float32, f"{name}_out")
