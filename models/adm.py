"""The U-Net of ADM as EDM writes it, for ImageNet-64 (Dhariwal and Nichol 2021; Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .adm_blocks import ADMBlock, conv, dense, zeros
from .attention import Attention, softmax_attention
from .embeddings import sinusoidal
from .net import check_conditions
from .unet_blocks import Norm, downsample, group_norm, upsample

BOX = (1, 1)


class ADMUNet(nn.Module):
    """U-Net over images [B, H, W, C]; `adm` builds it with the published settings. Its output starts at zero.

    Layers carry the names of EDM's DhariwalUNet, `enc_64x64_block0` for its `enc.64x64_block0`, so names
    depend on the resolution of the images. Parameters are float32.

    OpenAI's U-Net of guided diffusion and of Consistency Models is this network with
    `norm=partial(group_norm, epsilon=1e-5, least=1)` under other names. That of Consistency Models reads 1000 times
    EDM's noise level, that of guided diffusion the step, 0 to 999.

    Attributes:
        noise_embedding: fixed embedding of the noise level, [B] -> [B, features], float32.
        channels: channels before the multiplier; the embedding has four times as many features.
        multipliers: factor on `channels` at each resolution, highest first; each further one halves it.
        blocks: blocks of the encoder per resolution; the decoder has one more.
        attention_resolutions: image heights at which blocks have attention; the middle has it always.
        channels_per_head: channels of an attention head. As published, a block of fewer has no attention.
        adaptive_scale: whether the embedding scales and shifts in a block (ADM), or is added (iCT).
        resampling_blocks: whether blocks change the resolution, or single convolutions do (`resblock_updown=False` in
            guided diffusion): of stride 2, and of what was enlarged by repetition.
        double_norm: whether scale and shift are vectors of unit mean square (sCM); needs `adaptive_scale`.
        norm: normalisation of the blocks and before the last convolution; `non_scaling_norm` is iLCT's.
        num_classes: 0 for an unconditional network. Otherwise labels lie in [0, num_classes];
            `num_classes` itself is the null class, a one-hot vector of zeros.
        augment_features: length of the augmentation label, 0 for none.
        second_time: whether the network takes a second noise level s, embedded like the first one.
        second_branch: whether s then goes through layers of its own up to each block, where scales and shifts are
            added (CTM); the label does not. Otherwise it is added to the first embedding.
        guided: whether the network takes a guidance scale w: sinusoids of it, of frequency 1 and below, go through
            a linear layer that starts at zero and are added to the noise embedding.
        dropout: rate in blocks while training; key `dropout`.
        dropout_resolutions: image heights at which blocks have dropout; None for all.
        dtype: compute dtype of the blocks; embeddings and the last convolution stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D].
        out_channels: of the output; 0 for those of x.
    """

    noise_embedding: Callable[[Array], Array]
    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    channels_per_head: int = 64
    adaptive_scale: bool = True
    resampling_blocks: bool = True
    double_norm: bool = False
    norm: Norm = partial(group_norm, epsilon=1e-5)
    num_classes: int = 0
    augment_features: int = 0
    second_time: bool = False
    second_branch: bool = False
    guided: bool = False
    dropout: float = 0.0
    dropout_resolutions: tuple[int, ...] | None = None
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
            ValueError: the image cannot be halved often enough, the settings contradict each other, or a
                condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        self._check(x, augment)
        embedding, second = self._embed(t, labels, s, w, augment)

        def block(
            name: str,
            h: Array,
            channels: int,
            attend: bool = False,
            resample: Callable[[Array], Array] | None = None,
        ) -> Array:
            # What counts is the resolution that a block writes, whose name it bears.
            drops = self.dropout_resolutions is None or height in self.dropout_resolutions
            layer = ADMBlock(
                channels,
                resample,
                channels // self.channels_per_head if attend else 0,
                self.attention,
                self.adaptive_scale,
                self.double_norm,
                self.norm,
                self.dropout if drops else 0.0,
                not train,
                self.dtype,
                name=name,
            )
            return layer(h, embedding, second)

        levels = [
            (x.shape[1] >> level, x.shape[2] >> level, self.channels * multiplier)
            for level, multiplier in enumerate(self.multipliers)
        ]

        h = x.astype(self.dtype)
        skips = []
        for level, (height, width, channels) in enumerate(levels):
            size = f"{height}x{width}"
            if level == 0:
                h = conv(h, channels, 3, self.dtype, f"enc_{size}_conv")
            elif self.resampling_blocks:
                h = block(f"enc_{size}_down", h, h.shape[-1], resample=partial(downsample, taps=BOX))
            else:
                h = conv(h, h.shape[-1], 3, self.dtype, f"enc_{size}_down", stride=2)
            skips.append(h)
            for i in range(self.blocks):
                h = block(f"enc_{size}_block{i}", h, channels, height in self.attention_resolutions)
                skips.append(h)

        for level, (height, width, channels) in reversed(list(enumerate(levels))):
            size = f"{height}x{width}"
            if level == len(levels) - 1:
                h = block(f"dec_{size}_in0", h, h.shape[-1], True)
                h = block(f"dec_{size}_in1", h, h.shape[-1])
            elif self.resampling_blocks:
                h = block(f"dec_{size}_up", h, h.shape[-1], resample=partial(upsample, taps=BOX))
            else:
                h = conv(upsample(h, BOX), h.shape[-1], 3, self.dtype, f"dec_{size}_up")
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(f"dec_{size}_block{i}", h, channels, height in self.attention_resolutions)

        h = nn.silu(self.norm(h, jnp.float32, "out_norm"))
        return conv(h, self.out_channels or x.shape[-1], 3, jnp.float32, "out_conv", zeros)

    def _embed(
        self, t: Array, labels: Array | None, s: Array | None, w: Array | None, augment: Array | None
    ) -> tuple[Array, Array | None]:
        """Noise level, second one, guidance scale and augmentation through two layers, then the label.

        With `second_branch` the second one is passed through two others, and returned by itself.
        """
        embedding, second = self.noise_embedding(t), None
        features = embedding.shape[-1]
        if s is not None and self.second_branch:
            second = nn.silu(self._two_layers(self.noise_embedding(s), "_s"))
        elif s is not None:
            embedding += dense(self.noise_embedding(s), features, "map_s")
        if w is not None:
            layer = nn.Dense(features, use_bias=False, kernel_init=zeros, name="map_w")
            embedding += layer(sinusoidal(w, features))
        if self.augment_features:
            augment = jnp.zeros((t.shape[0], self.augment_features)) if augment is None else augment
            embedding += nn.Dense(features, use_bias=False, kernel_init=zeros, name="map_augment")(augment)
        embedding = self._two_layers(embedding, "")
        if labels is not None:
            normal = nn.initializers.normal(1.0)
            layer = nn.Dense(4 * self.channels, use_bias=False, kernel_init=normal, name="map_label")
            embedding += layer(jax.nn.one_hot(labels, self.num_classes))
        return nn.silu(embedding), second

    def _two_layers(self, embedding: Array, ending: str) -> Array:
        h = nn.silu(dense(embedding, 4 * self.channels, f"map_layer0{ending}"))
        return dense(h, 4 * self.channels, f"map_layer1{ending}")

    def _check(self, x: Array, augment: Array | None) -> None:
        _, height, width, _ = x.shape
        factor = 2 ** (len(self.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(f"image of {height}x{width} pixels is not divisible by {factor}, the coarsest scale")
        if self.double_norm and not self.adaptive_scale:
            raise ValueError("double_norm=True normalises the scale and shift of adaptive_scale=True, which is False")
        if augment is not None and augment.shape[-1] != self.augment_features:
            raise ValueError(f"augment must have {self.augment_features} features, got {augment.shape[-1]}")


def adm(
    channels: int = 192,
    multipliers: tuple[int, ...] = (1, 2, 3, 4),
    blocks: int = 3,
    attention_resolutions: tuple[int, ...] = (32, 16, 8),
    channels_per_head: int = 64,
    adaptive_scale: bool = True,
    double_norm: bool = False,
    num_classes: int = 0,
    augment_features: int = 0,
    second_time: bool = False,
    guided: bool = False,
    dropout: float = 0.1,
    dropout_resolutions: tuple[int, ...] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> ADMUNet:
    """ADM with its sinusoidal noise embedding. The defaults are EDM's for ImageNet-64 (1000 classes aside).

    iCT sets `adaptive_scale=False` and, for dropout up to 16 x 16 pixels, `dropout_resolutions=(16, 8)`.
    """
    return ADMUNet(
        noise_embedding=partial(sinusoidal, features=channels),
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_resolutions=attention_resolutions,
        channels_per_head=channels_per_head,
        adaptive_scale=adaptive_scale,
        double_norm=double_norm,
        num_classes=num_classes,
        augment_features=augment_features,
        second_time=second_time,
        guided=guided,
        dropout=dropout,
        dropout_resolutions=dropout_resolutions,
        dtype=dtype,
    )
