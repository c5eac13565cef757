"""The blocks of UViT: a convolutional one at high resolutions, a transformer one at the lowest."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .attention import Attention
from .spread import keep_examples
from .unet_blocks import group_norm

zeros = nn.initializers.zeros
MLP_RATIO = 4


class ResidualBlock(nn.Module):
    """Two convolutions with a modulated norm in between; the second one starts at zero, and the block as identity.

    A skip from the way down is not concatenated: it is normalised and added to the normalised input, and the sum is
    divided by sqrt(2).
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        embedding: Float32[Array, "batch embedding"],
        skip: Float[Array, "batch height width channels"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Apply the block; the number of channels stays."""
        channels = x.shape[-1]
        h = group_norm(x, self.dtype, "norm0")
        if skip is not None:
            h = (h + group_norm(skip, self.dtype, "norm_skip")) * math.sqrt(0.5)
        h = nn.Conv(channels, (3, 3), dtype=self.dtype, name="conv0")(nn.silu(h))
        scale, shift = _modulation(embedding, (1, 1, channels), self.dtype)
        h = group_norm(h, self.dtype, "norm1") * scale + shift
        return x + nn.Conv(channels, (3, 3), kernel_init=zeros, dtype=self.dtype, name="conv1")(nn.silu(h))


class TransformerBlock(nn.Module):
    """An MLP whose hidden features are modulated, then attention between normalised queries and keys.

    Both end in a layer that starts at zero. Dropout, key `dropout`, is before the last layer of the MLP.
    """

    heads: int
    dropout: float
    deterministic: bool
    dtype: DTypeLike
    attention: Attention

    @nn.compact
    def __call__(
        self, h: Float[Array, "batch length width"], embedding: Float32[Array, "batch embedding"]
    ) -> tuple[Float[Array, "batch length width"], None]:
        """Advance the tokens by one block; the pair is the carry and the output of a scan."""
        batch, length, width = h.shape

        branch = keep_examples(nn.Dense(MLP_RATIO * width, dtype=self.dtype, name="mlp0")(self._norm("norm0")(h)))
        scale, shift = _modulation(embedding, (1, MLP_RATIO * width), self.dtype)
        branch = nn.Dropout(self.dropout, deterministic=self.deterministic)(nn.silu(branch) * scale + shift)
        h = keep_examples(h + nn.Dense(width, kernel_init=zeros, dtype=self.dtype, name="mlp1")(branch))

        qkv = keep_examples(nn.Dense(3 * width, dtype=self.dtype, name="qkv")(self._norm("norm1")(h)))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, self.heads, width // self.heads), 2, 0)
        # A bias on all keys alike would move all logits of a query alike, which the softmax does not see.
        q, k = self._norm("norm_q", use_bias=True)(q), self._norm("norm_k")(k)
        out = self.attention(q, k, v).reshape(batch, length, width)
        return keep_examples(h + nn.Dense(width, kernel_init=zeros, dtype=self.dtype, name="proj")(out)), None

    def _norm(self, name: str, use_bias: bool = False) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-6, use_bias=use_bias, use_fast_variance=False, dtype=self.dtype, name=name)


def _modulation(embedding: Array, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[Array, Array]:
    """Factor, one plus the output of a float32 layer of the calling module, and summand; `shape` is an example's."""
    out = nn.Dense(2 * shape[-1], name="affine")(embedding)
    scale, shift = (part.reshape(-1, *shape).astype(dtype) for part in jnp.split(out, 2, axis=-1))
    return 1 + scale, shift
