"""Softmax attention as a function, plain or streamed, and the self-attention layer that takes such a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import Precision
from jax.nn.initializers import Initializer, xavier_uniform
from jax.typing import DTypeLike
from jaxtyping import Float

from .spread import keep_examples
from .streaming_attention import streaming_attention

Attention: TypeAlias = Callable[[Array, Array, Array], Array]
"""`attention(q, k, v)` with three arrays [B, L, H, D] -> [B, L, H, D]."""

STREAMED_KEYS = 1024
"""Keys from which `softmax_attention` is streamed: why is in README.md, "Attention"."""


def softmax_attention(
    q: Float[Array, "batch queries heads features"],
    k: Float[Array, "batch keys heads features"],
    v: Float[Array, "batch keys heads features"],
) -> Float[Array, "batch queries heads features"]:
    """`softmax(q k^T / sqrt(D)) v`, softmax in float32; returns the dtype of `q`.

    Plain below `STREAMED_KEYS` keys and streamed from there on, a choice that is made when it is traced. Both can be
    differentiated any number of times in both modes.
    """
    return (plain_attention if k.shape[1] < STREAMED_KEYS else streaming_attention)(q, k, v)


def plain_attention(
    q: Float[Array, "batch queries heads features"],
    k: Float[Array, "batch keys heads features"],
    v: Float[Array, "batch keys heads features"],
) -> Float[Array, "batch queries heads features"]:
    """The same with its weights [B, H, L, L'] in memory.

    The XLA form is asked for by name because it alone has a forward-mode derivative: the fused
    kernels define only a reverse-mode rule, and `jax.jvp` refuses those.
    """
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")


class SelfAttention(nn.Module):
    """Multi-head self-attention over [B, L, C]; the projection's channels are ordered (q|k|v, head, feature)."""

    heads: int
    attention: Attention = softmax_attention
    qkv_init: Initializer = xavier_uniform()
    proj_init: Initializer = xavier_uniform()
    dtype: DTypeLike = jnp.float32
    precision: Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        """Attend, then project back to the width of `x`."""
        batch, length, width = x.shape
        dense = partial(nn.Dense, dtype=self.dtype, precision=self.precision)
        qkv = keep_examples(dense(3 * width, kernel_init=self.qkv_init, name="qkv")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, self.heads, width // self.heads), 2, 0)
        out = self.attention(q, k, v).reshape(batch, length, width)
        return dense(width, kernel_init=self.proj_init, name="proj")(out)
