"""EDM's SongUNet in its two published forms, DDPM++ and NCSN++ (Song et al. 2021; Karras et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .attention import Attention, softmax_attention
from .embeddings import edm_positional, fourier, fourier_frequencies
from .net import check_conditions
from .unet_blocks import Norm, UNetBlock, conv, downsample, group_norm, plain_init, tiny_init, upsample


class SongUNet(nn.Module):
    """U-Net over images [B, H, W, C]; `ddpmpp` and `ncsnpp` build it with the published settings.

    Layers carry the names of the published network, `enc_32x32_block0` for its `enc.32x32_block0`, so
    names depend on the resolution of the images. Parameters are float32.

    Attributes:
        noise_embedding: fixed embedding of the noise level, [B] -> [B, features], float32.
        channels: channels at the highest resolution before the multiplier.
        multipliers: factor on `channels` at each resolution, highest first; each further one halves it.
        blocks: blocks of the encoder per resolution; the decoder has one more.
        attention_resolutions: image heights at which blocks have attention.
        residual_encoder: also feed the downsampled image into each resolution (NCSN++).
        resample_filter: taps of the low-pass filter, an even number of them.
        num_classes: 0 for an unconditional network. Otherwise labels lie in [0, num_classes];
            `num_classes` itself is the null class, a one-hot vector of zeros.
        augment_features: length of the augmentation label, 0 for none.
        second_time: whether the network takes a second noise level s, embedded like the first one.
        second_branch: whether s, and with it the label, then goes through layers of its own up to each block, where
            it is added (CTM's code), or is added to the noise embedding.
        guided: whether the network takes a guidance scale w: sinusoids of it, of frequency 1 and below, go through
            a linear layer that starts at zero and are added to the noise embedding.
        norm: normalisation of the blocks and before the last convolution; `non_scaling_norm` is iLCT's.
        double_norm: let the embedding scale and shift by vectors of unit mean square in each block (sCM),
            where it is otherwise added.
        dropout: rate in each block while training; key `dropout`.
        dtype: compute dtype of the blocks; embeddings and the last convolution stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D].
        out_channels: of the output; 0 for those of x.
    """

    noise_embedding: Callable[[Array], Array]
    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention_resolutions: tuple[int, ...] = (16,)
    residual_encoder: bool = False
    resample_filter: tuple[int, ...] = (1, 1)
    num_classes: int = 0
    augment_features: int = 0
    second_time: bool = False
    second_branch: bool = False
    guided: bool = False
    norm: Norm = group_norm
    double_norm: bool = False
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention
    out_channels: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None = None,
        s: Float[Array, " batch"] | None = None,
        w: Float[Array, " batch"] | None = None,
        *,
        augment: Float[Array, "batch augment"] | None = None,
        train: bool = False,
    ) -> Float32[Array, "batch height width out_channels"]:
        """Evaluate the network.

        Args:
            x: images, already scaled to unit variance (c_in x).
            t: the noise level as the network sees it (c_noise), ln(sigma) / 4 in EDM.
            labels: class indices.
            s: second noise level on the scale of `t`.
            w: guidance scale, one number for each example.
            augment: augmentation labels; None is the same as zeros.
            train: whether dropout is on.

        Raises:
            ValueError: the image cannot be halved often enough, or a condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        self._check(x, augment)
        embedding, second = self._embed(t, labels, s, w, augment)
        down = partial(downsample, taps=self.resample_filter)
        up = partial(upsample, taps=self.resample_filter)

        def block(
            name: str,
            h: Array,
            channels: int,
            attend: bool = False,
            resample: Callable[[Array], Array] | None = None,
        ) -> Array:
            attention = self.attention if attend else None
            layer = UNetBlock(
                channels,
                resample,
                attention,
                self.norm,
                self.double_norm,
                self.dropout,
                not train,
                self.dtype,
                name=name,
            )
            return layer(h, embedding, second)

        resolutions = [(x.shape[1] >> level, x.shape[2] >> level) for level in range(len(self.multipliers))]
        levels = [
            (f"{height}x{width}", self.channels * multiplier, height in self.attention_resolutions)
            for (height, width), multiplier in zip(resolutions, self.multipliers, strict=True)
        ]
        bottom = levels[-1][0]

        h = image = x.astype(self.dtype)
        skips = []
        for level, (size, channels, attend) in enumerate(levels):
            if level == 0:
                h = conv(self.channels, 3, self.dtype, f"enc_{size}_conv")(h)
            else:
                h = block(f"enc_{size}_down", h, h.shape[-1], resample=down)
                if self.residual_encoder:
                    h = image = (h + self._downsample_image(image, h.shape[-1], size)) * math.sqrt(0.5)
            skips.append(h)
            for i in range(self.blocks):
                h = block(f"enc_{size}_block{i}", h, channels, attend)
                skips.append(h)

        for size, channels, attend in reversed(levels):
            if size == bottom:
                h = block(f"dec_{size}_in0", h, h.shape[-1], True)
                h = block(f"dec_{size}_in1", h, h.shape[-1])
            else:
                h = block(f"dec_{size}_up", h, h.shape[-1], resample=up)
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(f"dec_{size}_block{i}", h, channels, attend and i == self.blocks)

        h = nn.silu(self.norm(h, jnp.float32, f"dec_{size}_aux_norm"))
        return conv(self.out_channels or x.shape[-1], 3, jnp.float32, f"dec_{size}_aux_conv", tiny_init)(h)

    def _embed(
        self, t: Array, labels: Array | None, s: Array | None, w: Array | None, augment: Array | None
    ) -> tuple[Array, Array | None]:
        """Noise level, second one, guidance scale, label and augmentation, added and passed through two layers.

        With `second_branch` the second one and the label are passed through two others, and returned by themselves.
        """
        embedding, second = self.noise_embedding(t), None
        features = embedding.shape[-1]
        if s is not None and self.second_branch:
            second = self.noise_embedding(s)
        elif s is not None:
            embedding += nn.Dense(features, kernel_init=plain_init, name="map_s")(self.noise_embedding(s))
        if w is not None:
            layer = nn.Dense(features, use_bias=False, kernel_init=nn.initializers.zeros, name="map_w")
            embedding += layer(edm_positional(w, features))
        if labels is not None:
            one_hot = jax.nn.one_hot(labels, self.num_classes) * math.sqrt(self.num_classes)
            label = nn.Dense(features, kernel_init=plain_init, name="map_label")(one_hot)
            embedding += label
            second = None if second is None else second + label
        if self.augment_features:
            augment = jnp.zeros((t.shape[0], self.augment_features)) if augment is None else augment
            layer = nn.Dense(features, use_bias=False, kernel_init=plain_init, name="map_augment")
            embedding += layer(augment)

        def two_layers(h: Array, ending: str) -> Array:
            for name in ("map_layer0", "map_layer1"):
                h = nn.silu(nn.Dense(4 * self.channels, kernel_init=plain_init, name=f"{name}{ending}")(h))
            return h

        return two_layers(embedding, ""), None if second is None else two_layers(second, "_s")

    def _downsample_image(self, image: Array, channels: int, size: str) -> Array:
        """Convolve first, with the border that the filter needs, then filter and halve."""
        border = (len(self.resample_filter) - 1) // 2
        name = f"enc_{size}_aux_residual"
        image = conv(channels, 3, self.dtype, name, extra_padding=border)(image)
        return downsample(image, self.resample_filter, padded=True)

    def _check(self, x: Array, augment: Array | None) -> None:
        _, height, width, _ = x.shape
        factor = 2 ** (len(self.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(f"image of {height}x{width} pixels is not divisible by {factor}, the coarsest scale")
        if len(self.resample_filter) % 2:
            raise ValueError(f"resample_filter needs an even number of taps, got {self.resample_filter}")
        if augment is not None and augment.shape[-1] != self.augment_features:
            raise ValueError(f"augment must have {self.augment_features} features, got {augment.shape[-1]}")


def ddpmpp(
    channels: int = 128,
    multipliers: tuple[int, ...] = (2, 2, 2),
    blocks: int = 4,
    attention_resolutions: tuple[int, ...] = (16,),
    num_classes: int = 0,
    augment_features: int = 0,
    second_time: bool = False,
    guided: bool = False,
    double_norm: bool = False,
    dropout: float = 0.13,
    dtype: DTypeLike = jnp.float32,
) -> SongUNet:
    """DDPM++: sinusoidal noise embedding, box filter. The defaults are EDM's for CIFAR-10 (augmentation aside)."""
    return SongUNet(
        noise_embedding=partial(edm_positional, features=channels),
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_resolutions=attention_resolutions,
        num_classes=num_classes,
        augment_features=augment_features,
        second_time=second_time,
        guided=guided,
        double_norm=double_norm,
        dropout=dropout,
        dtype=dtype,
    )


def ncsnpp(
    channels: int = 128,
    multipliers: tuple[int, ...] = (2, 2, 2),
    blocks: int = 4,
    attention_resolutions: tuple[int, ...] = (16,),
    num_classes: int = 0,
    augment_features: int = 0,
    second_time: bool = False,
    guided: bool = False,
    double_norm: bool = False,
    dropout: float = 0.13,
    fourier_scale: float = 16.0,
    dtype: DTypeLike = jnp.float32,
) -> SongUNet:
    """NCSN++: Gaussian Fourier embedding, residual encoder, smooth filter. The defaults are EDM's for CIFAR-10.

    iCT and ECT set `fourier_scale=0.02`. To use the frequencies of a checkpoint, replace them:
    `ncsnpp(...).clone(noise_embedding=partial(fourier, frequencies=...))`.
    """
    return SongUNet(
        noise_embedding=partial(fourier, frequencies=fourier_frequencies(2 * channels, fourier_scale)),
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_resolutions=attention_resolutions,
        residual_encoder=True,
        resample_filter=(1, 3, 3, 1),
        num_classes=num_classes,
        augment_features=augment_features,
        second_time=second_time,
        guided=guided,
        double_norm=double_norm,
        dropout=dropout,
        dtype=dtype,
    )
