"""EDM2's magnitude-preserving U-Net, and the form in which sCM uses it (Karras et al. 2024; Lu and Song 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Integer

from .attention import Attention, softmax_attention
from .edm2_blocks import (
    EDM2Block,
    MPConv,
    fourier_phases,
    mp_add,
    mp_concat,
    mp_fourier,
    mp_positional,
    mp_silu,
    mp_sum,
)
from .embeddings import fourier_frequencies
from .net import check_conditions
from .remat import Remat, keep_all
from .unet_blocks import downsample, upsample

EDM2_SIZES = {"XS": 128, "S": 192, "M": 256, "L": 320, "XL": 384, "XXL": 448}
"""Channels of the published networks, to be passed to `edm2` and `edm2_scm`."""

BOX = (1, 1)


class EDM2UNet(nn.Module):
    """U-Net over images [B, H, W, C]; `edm2` and `edm2_scm` build it. At initialisation its output is zero.

    Layers carry the names of the published network, `enc_64x64_block0` for its `enc.64x64_block0`, so
    names depend on the resolution of the images. Parameters are float32. `project_weights` belongs into the
    training step.

    Attributes:
        noise_embedding: fixed embedding of the noise level, [B] -> [B, features], float32, of unit mean square.
        channels: channels before the multiplier.
        multipliers: factor on `channels` at each resolution, highest first; each further one halves it.
        blocks: blocks of the encoder per resolution; the decoder has one more.
        attention_resolutions: image heights at which blocks have attention; the middle has it always.
        channels_per_head: channels of an attention head.
        num_classes: 0 for an unconditional network. Otherwise labels lie in [0, num_classes];
            `num_classes` itself is the null class, a one-hot vector of zeros.
        second_time: whether the network takes a second noise level s, embedded like the first one.
        guided: whether the network takes a guidance scale w: sinusoids of it, of frequency 1 and below, go through
            a layer and are added last, with a learned gain that starts at zero.
        double_norm: let the embedding scale by vectors of unit mean square in each block, after a norm (sCM).
        dropout: rate in blocks while training; key `dropout`.
        dropout_resolutions: image heights at which blocks have dropout; None for all.
        remat: what of each block the backward pass computes again, one of remat.py's.
        dtype: compute dtype of the blocks; embeddings and the last convolution stay float32 where it is lower.
        attention: function (q, k, v) -> out over [B, L, H, D].
    """

    noise_embedding: Callable[[Array], Array]
    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention_resolutions: tuple[int, ...] = (16, 8)
    channels_per_head: int = 64
    num_classes: int = 0
    second_time: bool = False
    guided: bool = False
    double_norm: bool = False
    dropout: float = 0.0
    dropout_resolutions: tuple[int, ...] | None = None
    remat: Remat = keep_all
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None = None,
        s: Float[Array, " batch"] | None = None,
        w: Float[Array, " batch"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch height width channels"]:
        """Evaluate the network.

        Args:
            x: images, already scaled to unit variance (c_in x).
            t: the noise level as the network sees it (c_noise): ln(sigma) / 4 in EDM2, the angle in sCM.
            labels: class indices.
            s: second noise level on the scale of `t`.
            w: guidance scale, one number for each example.
            train: whether dropout is on.

        Returns:
            float32, or float64 where `dtype` is.

        Raises:
            ValueError: the image cannot be halved often enough, channels do not divide into heads, or a
                condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        _, rows, columns, _ = x.shape
        factor = 2 ** (len(self.multipliers) - 1)
        if rows % factor or columns % factor:
            raise ValueError(f"image of {rows}x{columns} pixels is not divisible by {factor}, the coarsest scale")
        embedding = self._embed(t, labels, s, w)
        layer = self.remat(EDM2Block)

        def block(
            name: str,
            h: Array,
            channels: int,
            attend: bool = False,
            resample: Callable[[Array], Array] | None = None,
        ) -> Array:
            if attend and channels % self.channels_per_head:
                raise ValueError(
                    f"{name} attends over {channels} channels, which do not divide into heads of "
                    f"channels_per_head={self.channels_per_head}"
                )
            # What counts is the resolution that a block writes, whose name it bears.
            drops = self.dropout_resolutions is None or height in self.dropout_resolutions
            return layer(
                channels=channels,
                encoder=name.startswith("enc"),
                resample=resample,
                heads=channels // self.channels_per_head if attend else 0,
                attention=self.attention,
                double_norm=self.double_norm,
                dropout=self.dropout if drops else 0.0,
                deterministic=not train,
                dtype=self.dtype,
                name=name,
            )(h, embedding)

        levels = [
            (rows >> level, columns >> level, self.channels * multiplier)
            for level, multiplier in enumerate(self.multipliers)
        ]

        # A channel of ones stands for the biases that no layer has.
        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).astype(self.dtype)
        skips = []
        for level, (height, width, channels) in enumerate(levels):
            size = f"{height}x{width}"
            if level == 0:
                h = MPConv(channels, (3, 3), self.dtype, name=f"enc_{size}_conv")(h)
            else:
                h = block(f"enc_{size}_down", h, h.shape[-1], resample=partial(downsample, taps=BOX))
            skips.append(h)
            for i in range(self.blocks):
                h = block(f"enc_{size}_block{i}", h, channels, height in self.attention_resolutions)
                skips.append(h)

        for level, (height, width, channels) in reversed(list(enumerate(levels))):
            size = f"{height}x{width}"
            if level == len(levels) - 1:
                h = block(f"dec_{size}_in0", h, h.shape[-1], True)
                h = block(f"dec_{size}_in1", h, h.shape[-1])
            else:
                h = block(f"dec_{size}_up", h, h.shape[-1], resample=partial(upsample, taps=BOX))
            for i in range(self.blocks + 1):
                h = mp_concat(h, skips.pop())
                h = block(f"dec_{size}_block{i}", h, channels, height in self.attention_resolutions)

        gain = self.param("out_gain", nn.initializers.zeros, ())
        return MPConv(x.shape[-1], (3, 3), embedding.dtype, name="out_conv")(h, gain)

    def _embed(self, t: Array, labels: Array | None, s: Array | None, w: Array | None) -> Array:
        """Noise level, second one and label through a layer each, with equal weights; guidance scale with a gain."""
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        linear = partial(MPConv, self.channels * max(self.multipliers), dtype=dtype)
        embedding = linear(name="emb_noise")(self.noise_embedding(t))
        if s is not None:
            embedding = mp_sum(embedding, linear(name="emb_s")(self.noise_embedding(s)))
        if labels is not None:
            one_hot = jax.nn.one_hot(labels, self.num_classes) * math.sqrt(self.num_classes)
            embedding = mp_sum(embedding, linear(name="emb_label")(one_hot))
        if w is not None:
            gain = self.param("emb_w_gain", nn.initializers.zeros, ())
            scale = linear(name="emb_w")(mp_positional(w, self.channels * self.multipliers[0]))
            embedding = mp_add(embedding, scale, gain)
        return mp_silu(embedding)


def edm2(
    channels: int = EDM2_SIZES["S"],
    multipliers: tuple[int, ...] = (1, 2, 3, 4),
    blocks: int = 3,
    attention_resolutions: tuple[int, ...] = (16, 8),
    channels_per_head: int = 64,
    num_classes: int = 0,
    second_time: bool = False,
    guided: bool = False,
    dropout: float = 0.0,
    dropout_resolutions: tuple[int, ...] | None = None,
    remat: Remat = keep_all,
    dtype: DTypeLike = jnp.float32,
) -> EDM2UNet:
    """EDM2 with its random Fourier embedding. The defaults are size S; 1000 classes make it the published one.

    EDM2 has dropout 0.1 from size M on; ECT sets `dropout_resolutions=(16, 8)` with 0.4 (S) or 0.5. To use the
    frequencies of a checkpoint, replace them: `edm2(...).clone(noise_embedding=partial(mp_fourier, ...))`.
    """
    features = channels * multipliers[0]
    frequencies = fourier_frequencies(2 * features, scale=1.0)
    return EDM2UNet(
        noise_embedding=partial(mp_fourier, frequencies=frequencies, phases=fourier_phases(features)),
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_resolutions=attention_resolutions,
        channels_per_head=channels_per_head,
        num_classes=num_classes,
        second_time=second_time,
        guided=guided,
        dropout=dropout,
        dropout_resolutions=dropout_resolutions,
        remat=remat,
        dtype=dtype,
    )


def edm2_scm(
    channels: int = EDM2_SIZES["S"],
    multipliers: tuple[int, ...] = (1, 2, 3, 4),
    blocks: int = 3,
    attention_resolutions: tuple[int, ...] = (16, 8),
    channels_per_head: int = 64,
    num_classes: int = 0,
    second_time: bool = False,
    guided: bool = False,
    dropout: float = 0.0,
    dropout_resolutions: tuple[int, ...] | None = (16, 8),
    remat: Remat = keep_all,
    dtype: DTypeLike = jnp.float32,
) -> EDM2UNet:
    """EDM2 as sCM changes it: positional embedding of the angle t, double normalisation, dropout up to 16 pixels.

    The random Fourier embedding of ln(sigma) / 4 gives time derivatives too large for continuous-time training.
    sCM says "positional"; that this is EDM's, at unit mean square, is our reading.
    """
    network = edm2(
        channels,
        multipliers,
        blocks,
        attention_resolutions,
        channels_per_head,
        num_classes,
        second_time,
        guided,
        dropout,
        dropout_resolutions,
        remat,
        dtype,
    )
    return network.clone(noise_embedding=partial(mp_positional, features=channels * multipliers[0]), double_norm=True)
