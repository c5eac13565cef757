"""Magnitude-preserving layers and the block of EDM2's U-Net (Karras et al. 2024).

Each layer gives numbers of unit mean square where it is given such numbers and has random weights. There are
no biases and no norms with parameters.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from .attention import Attention
from .embeddings import edm_positional
from .net import at_least_float32
from .pixel_norm import pixel_norm
from .spread import keep_examples


class EDM2Block(nn.Module):
    """Two convolutions with the noise embedding brought in between, and attention where it has heads.

    Attributes:
        channels: channels of the output.
        encoder: whether the input's channels are matched to the output's, and normalised, before both branches;
            the decoder matches the skip branch alone.
        resample: applied to the input; None keeps the resolution.
        heads: attention heads, 0 for no attention.
        attention: attention function.
        double_norm: whether the embedding scales by a vector of unit mean square after a norm (sCM), or as it is
            (EDM2).
        dropout: rate before the second convolution.
        deterministic: whether dropout is off.
        dtype: compute dtype; normalisation statistics are float32 in any case.
    """

    channels: int
    encoder: bool
    resample: Callable[[Array], Array] | None
    heads: int
    attention: Attention
    double_norm: bool
    dropout: float
    deterministic: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], embedding: Float[Array, "batch embedding"]
    ) -> Float[Array, "batch new_height new_width new_channels"]:
        """Apply the block."""
        if self.resample is not None:
            x = self.resample(x)
        if self.encoder:
            x = normalize(self._match(x), -1).astype(self.dtype)

        h = MPConv(self.channels, (3, 3), self.dtype, name="conv_res0")(mp_silu(x))
        h = mp_silu(self._modulate(h, embedding))
        h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
        h = MPConv(self.channels, (3, 3), self.dtype, name="conv_res1")(h)

        if not self.encoder:
            x = self._match(x)
        x = mp_sum(x, h, 0.3)
        if self.heads:
            x = mp_sum(x, self._attend(x), 0.3)
        return jnp.clip(x, -256.0, 256.0)

    def _match(self, x: Array) -> Array:
        if x.shape[-1] == self.channels:
            return x
        return MPConv(self.channels, (1, 1), self.dtype, name="conv_skip")(x)

    def _modulate(self, h: Array, embedding: Array) -> Array:
        """Bring in the noise embedding.

        EDM2 multiplies by a scale s = 1 + gain * linear(embedding), and has neither shift nor norm here. What is
        known of sCM is that it modulates by norm(h) * pnorm(s) + pnorm(b), and that its networks have as many
        parameters as EDM2's to the last digit that is published. Our reading: the scale is EDM2's, norm is the pixel
        norm, the one that EDM2 has, and there is no b, which would need a layer more in every block.
        """
        gain = self.param("emb_gain", nn.initializers.zeros, ())
        scale = 1.0 + MPConv(self.channels, dtype=embedding.dtype, name="emb_linear")(embedding, gain)[:, None, None, :]
        if not self.double_norm:
            return h * scale.astype(h.dtype)
        return (pixel_norm(h) * pixel_norm(scale)).astype(h.dtype)

    def _attend(self, x: Array) -> Array:
        """Attention with q, k and v normalised per head; the projection's channels: (q|k|v, head, feature)."""
        batch, height, width, channels = x.shape
        qkv = MPConv(3 * channels, (1, 1), self.dtype, name="attn_qkv")(x)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        q, k, v = jnp.moveaxis(normalize(qkv, -1).astype(self.dtype), 2, 0)
        out = self.attention(q, k, v).reshape(x.shape)
        return MPConv(channels, (1, 1), self.dtype, name="attn_proj")(out)


class MPConv(nn.Module):
    """Convolution that keeps the resolution, or linear layer for `kernel=()`, with a weight normalised on use.

    The parameter is called `weight` and not `kernel`, which sets it apart from those of Flax's own layers: only
    its direction matters, one for each output channel. `project_weights` finds it by that name.
    """

    features: int
    kernel: tuple[int, ...] = ()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch channels"], gain: Float[Array, ""] | float = 1.0
    ) -> Float[Array, "*batch features"]:
        """Apply the layer; its output is proportional to `gain`."""
        weight = self.param("weight", nn.initializers.normal(1.0), (*self.kernel, x.shape[-1], self.features))
        weight = _unit_weight(weight) * (gain / math.sqrt(weight[..., 0].size))
        x, weight = x.astype(self.dtype), weight.astype(self.dtype)
        if not self.kernel:
            return x @ weight
        out = jax.lax.conv_general_dilated(
            x, weight, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return keep_examples(out)


def normalize(a: Float[Array, "..."], axis: int | tuple[int, ...]) -> Float[Array, "..."]:
    """Divide by 1e-4 plus the root mean square over `axis`, in float32: EDM2's norm of pixels and of weights.

    Zero at zero, where its derivative is 1e4 in both modes.
    """
    a = at_least_float32(a)
    square = jnp.mean(a * a, axis=axis, keepdims=True)
    # The root has no derivative at zero, and a NaN of the branch not taken would come through `where`.
    root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return a / (1e-4 + root)


def _unit_weight(weight: Array) -> Array:
    """Normalise the weights of each output channel, the last axis."""
    return normalize(weight, tuple(range(weight.ndim - 1)))


def project_weights(params: Any) -> Any:
    """Normalise the stored weights of `MPConv`, in any tree that holds them; other leaves stay as they are.

    EDM2's forced weight normalisation as a pure function, to be applied after each step of the optimizer: without
    it weights grow, since gradients are orthogonal to them, and the steps come to nothing. Weights are normalised
    on use in any case, so the network's function changes by no more than the 1e-4 in `normalize`. The original
    overwrites the weights in the forward pass while training; after the first step the numbers are the same.

    Raises:
        ValueError: there is no such weight in the tree.
    """
    found = []

    def project(path: tuple[Any, ...], leaf: Array) -> Array:
        if jax.tree_util.keystr(path[-1:], simple=True) != "weight":
            return leaf
        found.append(path)
        return _unit_weight(leaf).astype(leaf.dtype)

    projected = jax.tree_util.tree_map_with_path(project, params)
    if not found:
        raise ValueError("there is no parameter named 'weight' to project; this network does not normalise its weights")
    return projected


def projected() -> optax.GradientTransformation:
    """Change updates so that they land on projected weights: the last link, `optax.chain(adam, projected())`.

    Raises:
        ValueError: `update` is called without parameters, or `project_weights` finds no weight.
    """

    def land(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("projected() needs the parameters: call update(gradient, state, params)")
        landing = project_weights(jax.tree.map(jnp.add, params, updates))
        return jax.tree.map(jnp.subtract, landing, params)

    return optax.stateless(land)


def mp_silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """SiLU over its root mean square on standard normal numbers."""
    return nn.silu(x) / 0.596


def mp_sum(a: Float[Array, "*shape"], b: Float[Array, "*shape"], t: float = 0.5) -> Float[Array, "*shape"]:
    """Sum of a at weight 1 - t and b at weight t, scaled to keep the magnitude of uncorrelated summands."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_add(a: Float[Array, "*shape"], b: Float[Array, "*shape"], gain: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Sum of a and gain b, scaled to keep the magnitude of uncorrelated summands; at gain 0 it is a, bit for bit."""
    return (a + gain * b) / jnp.sqrt(1 + gain * gain)


def mp_concat(a: Float[Array, "*batch left"], b: Float[Array, "*batch right"]) -> Float[Array, "*batch both"]:
    """Concatenate the last axes; both parts contribute alike to the next layer, however many channels they have."""
    scale_a, scale_b = (math.sqrt((a.shape[-1] + b.shape[-1]) / (2 * part.shape[-1])) for part in (a, b))
    return jnp.concatenate([scale_a * a, scale_b * b], axis=-1)


def mp_fourier(
    t: Float[Array, " batch"], frequencies: Sequence[float], phases: Sequence[float]
) -> Float[Array, "batch features"]:
    """Cosines of `2 pi (frequency t + phase)` times sqrt(2), in float32: EDM2's random Fourier features."""
    angles = at_least_float32(t)[:, None] * (2 * np.pi * np.asarray(frequencies)) + 2 * np.pi * np.asarray(phases)
    return jnp.cos(angles) * math.sqrt(2)


def fourier_phases(features: int) -> tuple[float, ...]:
    """Draw phases uniformly from [0, 1): the same ones on every call and machine.

    The stream is not that of `fourier_frequencies`, where frequency and phase would be functions of each other.
    """
    uniform = random.Random(1)
    return tuple(uniform.random() for _ in range(features))


def mp_positional(t: Float[Array, " batch"], features: int) -> Float[Array, "batch features"]:
    """Sines and cosines of t times sqrt(2): EDM's positional embedding at unit mean square."""
    return edm_positional(t, features) * math.sqrt(2)
