"""Transformer over patches whose conditions are tokens before them, with two heads: the network of improved MeanFlow.

Told the length h = t - s of the interval and not t: how noisy x is it sees itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .attention import Attention, softmax_attention
from .dit import Size, patchify, unpatchify
from .embeddings import sinusoidal
from .narrow import narrowed
from .remat import Remat, keep_all
from .spread import keep_examples

FREQUENCY_FEATURES = 256
HEAD_DEPTH = 8
NORMS = ("norm0", "norm1", "norm_q", "norm_k")  # of a block; in float32

IN_CONTEXT_SIZES = {
    "B": Size(width=768, depth=12, heads=12),
    "M": Size(width=768, depth=24, heads=12),
    "L": Size(width=1024, depth=32, heads=16),
    "XL": Size(width=1024, depth=48, heads=16),
}
"""The sizes of improved MeanFlow, all with patches of 2; depth is that of one head's path, heads of 64 features."""


class Tokens(NamedTuple):
    """How many tokens each condition has."""

    label: int = 8
    omega: int = 4
    low: int = 2
    high: int = 2
    h: int = 4


class InContextDiT(nn.Module):
    """(x, h, labels, omega, low, high) -> mean velocity u and velocity v, [B, H, W, C] both; zero at initialisation.

    RMS norms, no biases, no modulation: each branch ends in a vector gate that starts at zero. Queries and keys are
    normalised and turned by their place in the whole sequence, conditions included. Under jit a head that is not used
    is not computed.

    Attributes:
        patch: side of a square patch in pixels; divides height and width of the image.
        width: features of a token, a multiple of 2 `heads`.
        depth: blocks that a head's output has passed, shared ones included.
        heads: attention heads.
        head_depth: blocks of each of u and v alone; the first depth - head_depth are shared.
        num_classes: labels lie in [0, num_classes], and `num_classes` itself is the null class; 0 for none.
        tokens: tokens of each condition.
        init_scale: c of the blocks' initial weights, of standard deviation c / sqrt(inputs).
        remat: what of each block the backward pass computes again, one of remat.py's.
        unroll: blocks in one iteration of the scans.
        dtype: compute dtype of the blocks; embeddings, norms and the last layers stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D], with a forward-mode derivative.
    """

    patch: int
    width: int
    depth: int
    heads: int
    head_depth: int = HEAD_DEPTH
    num_classes: int = 0
    tokens: Tokens = Tokens()
    init_scale: float = 0.32
    remat: Remat = keep_all
    unroll: int = 1
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        h: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None,
        omega: Float[Array, " batch"],
        low: Float[Array, " batch"],
        high: Float[Array, " batch"],
    ) -> tuple[Float32[Array, "batch height width channels"], Float32[Array, "batch height width channels"]]:
        """Evaluate both heads: u over an interval of length h, guided by omega where low <= t <= high, and v.

        Raises:
            ValueError: the image is not divisible into patches, or `width` not into heads of even size, or there are
                no shared blocks, or labels are missing or superfluous.
        """
        _, height, width, channels = x.shape
        self._check(height, width, labels)
        given = {"omega": 1 - 1 / omega, "low": low, "high": high, "h": h}
        prefix = [
            self._tokens(name, _Embedding(self.width, name=f"embed_{name}")(value)) for name, value in given.items()
        ]
        if labels is not None:
            normal = nn.initializers.normal(0.02)
            table = nn.Embed(self.num_classes + 1, self.width, embedding_init=normal, name="embed_label")
            prefix.insert(0, self._tokens("label", table(labels)))
        patches = _dense(self.width, 1.0, jnp.float32, "embed")(patchify(x, self.patch))
        sequence = jnp.concatenate([*prefix, patches], axis=1).astype(self.dtype)

        shared = self._blocks(self.depth - self.head_depth, "shared")(sequence)
        outputs = []
        for name in ("u", "v"):
            own = self._blocks(self.head_depth, f"blocks_{name}")(shared)[:, -patches.shape[1] :]
            own = _rms_norm(own, f"norm_{name}")
            last = nn.Dense(
                self.patch**2 * channels, use_bias=False, kernel_init=nn.initializers.zeros, name=f"final_{name}"
            )
            outputs.append(unpatchify(last(own), self.patch, height, width))
        return outputs[0], outputs[1]

    def _tokens(self, name: str, embedding: Array) -> Array:
        """One vector [B, width] as the tokens of a condition, told apart by vectors of their own."""
        shape = (getattr(self.tokens, name), self.width)
        own = self.param(f"tokens_{name}", nn.initializers.normal(0.02), shape)
        return own + embedding[:, None, :]

    def _blocks(self, length: int, name: str) -> _Blocks:
        return _Blocks(
            length, self.heads, self.init_scale, self.remat, self.unroll, self.dtype, self.attention, name=name
        )

    def _check(self, height: int, width: int, labels: Array | None) -> None:
        if height % self.patch or width % self.patch:
            raise ValueError(f"image of {height}x{width} pixels is not divisible into patches of {self.patch}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} is not divisible into heads={self.heads} of even size")
        if not 1 <= self.head_depth < self.depth:
            raise ValueError(f"head_depth must lie in [1, {self.depth - 1}], got {self.head_depth}")
        if (labels is None) != (self.num_classes == 0):
            given = "no labels" if labels is None else "labels"
            raise ValueError(f"labels go with num_classes > 0, got num_classes={self.num_classes} and {given}")


class _Blocks(nn.Module):
    """Some blocks in a row, as one scan."""

    length: int
    heads: int
    init_scale: float
    remat: Remat
    unroll: int
    dtype: DTypeLike
    attention: Attention

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        block = self.remat(_Block, prevent_cse=self.unroll > 1)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.length,
            unroll=min(self.unroll, self.length),
        )
        if not self.is_initializing():
            blocks = narrowed(blocks, self.dtype, but=NORMS)
        return blocks(self.heads, self.init_scale, self.dtype, self.attention, name="blocks")(x, None)[0]


class _Block(nn.Module):
    """Attention, then SwiGLU, each after a norm and before a gate."""

    heads: int
    init_scale: float
    dtype: DTypeLike
    attention: Attention

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"], _: None) -> tuple[Array, None]:
        batch, length, width = x.shape
        features = width // self.heads

        def linear(name: str, features: int) -> Callable[[Array], Array]:
            layer = _dense(features, self.init_scale, self.dtype, name)
            return lambda h: keep_examples(layer(h))

        def gate(name: str) -> Array:
            return self.param(name, nn.initializers.zeros, (width,)).astype(self.dtype)

        h = _rms_norm(x, "norm0").astype(self.dtype)
        q, k, v = jnp.moveaxis(linear("qkv", 3 * width)(h).reshape(batch, length, 3, self.heads, features), 2, 0)
        q, k = (rotate(_rms_norm(a, name)).astype(self.dtype) for a, name in ((q, "norm_q"), (k, "norm_k")))
        out = linear("proj", width)(self.attention(q, k, v).reshape(batch, length, width))
        x += gate("gate0") * out

        hidden = 8 * width // 3
        h = _rms_norm(x, "norm1").astype(self.dtype)
        h = nn.silu(linear("mlp_gate", hidden)(h)) * linear("mlp_in", hidden)(h)
        x += gate("gate1") * linear("mlp_out", width)(h)
        return x, None


class _Embedding(nn.Module):
    """Sinusoids of a number, through two layers without biases; float32."""

    width: int

    @nn.compact
    def __call__(self, value: Float[Array, " batch"]) -> Float32[Array, "batch width"]:
        h = nn.silu(_dense(self.width, 1.0, jnp.float32, "linear0")(sinusoidal(value, FREQUENCY_FEATURES)))
        return _dense(self.width, 1.0, jnp.float32, "linear1")(h)


def rotate(
    x: Float[Array, "batch length heads features"], max_period: float = 1e4
) -> Float[Array, "batch length heads features"]:
    """Rotary positions (Su et al. 2021): features i and i + D/2 at place n turned by n / max_period^(2 i / D)."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * max_period ** -(np.arange(half) / half)
    cos, sin = (jnp.asarray(f(angles), x.dtype)[:, None, :] for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _rms_norm(x: Array, name: str) -> Array:
    """Unit mean square over the features, with a scale; float32."""
    return nn.RMSNorm(epsilon=1e-6, dtype=jnp.float32, name=name)(x.astype(jnp.float32))


def _dense(features: int, scale: float, dtype: DTypeLike, name: str) -> nn.Dense:
    """A linear layer without a bias whose weights have standard deviation scale / sqrt(inputs)."""
    init = variance_scaling(scale**2, "fan_in", "normal")
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, name=name)
