"""The text-conditional U-Net of Stable Diffusion (Rombach et al. 2022), in the forms of versions 1.5 and 2.1."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32

from .adm_blocks import conv, dense, zeros
from .attention import Attention, softmax_attention
from .embeddings import sinusoidal
from .net import check_conditions
from .remat import Remat, keep_all
from .stable_unet_blocks import ResidualBlock, TextTransformer, group_norm, halve


class StableUNet(nn.Module):
    """U-Net over latents [B, H, W, C] that attends to text; the defaults are SD 1.5's. Its output starts at zero.

    It is the `UNet2DConditionModel` of the diffusers library with the settings of SD 1.x and 2.x. Whether the output is
    noise or v is a matter of the weights. Parameters are float32.

    Layers that only this network has, for `s` and `w`, start at zero: with published weights it starts as the published
    network, whatever `s` and `w` are.

    With `mutable=["intermediates"]` a call also gives what each resolution and the middle put out, in the order of the
    blocks: nine maps of SD 1.5, which discriminators look at.

    Attributes:
        channels: channels at each resolution, highest first; each further one halves it.
        attends: whether the blocks of a resolution are followed by attention; that of the middle always is.
        heads: attention heads at each resolution, the middle has those of the last.
        blocks: blocks per resolution on the way down; on the way up there is one more.
        text_features: features of a text state.
        latent_channels: channels of the input and of the output.
        groups: groups of each group normalisation; they divide all `channels`.
        second_time: whether the network takes a second time s, embedded like t.
        guided: whether the network takes a guidance scale w, embedded by sinusoids of w, of frequency 1 and below.
        dropout: rate in the residual blocks while training; key `dropout`.
        remat: what of each block the backward pass computes again, one of remat.py's.
        dtype: compute dtype of the blocks; embeddings and the last convolution stay float32.
        attention: function (q, k, v) -> out over [B, L, H, D]; to text, keys and values have another L than queries.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attends: tuple[bool, ...] = (True, True, True, False)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    blocks: int = 2
    text_features: int = 768
    latent_channels: int = 4
    groups: int = 32
    second_time: bool = False
    guided: bool = False
    dropout: float = 0.0
    remat: Remat = keep_all
    dtype: DTypeLike = jnp.float32
    attention: Attention = softmax_attention

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        t: Float[Array, " batch"],
        text: Float[Array, "batch length features"],
        s: Float[Array, " batch"] | None = None,
        w: Float[Array, " batch"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[Array, "batch height width channels"]:
        """Evaluate the network.

        Args:
            x: noisy latents, already multiplied by the scale of the autoencoder (0.18215 in SD).
            t: timesteps from 0 to 999; those in between are as good.
            text: last states of the text encoder. No caption is the states of the empty string.
            s: second timesteps, on the scale of t.
            w: guidance scale, one number for each example.
            train: whether dropout is on.

        Raises:
            ValueError: the latents cannot be halved often enough or have other channels, the text has another shape,
                the settings contradict each other, or a condition is missing or superfluous.
        """
        check_conditions(x, t, None, s, w, 0, self.second_time, self.guided)
        self._check(x, text)
        embedding = nn.silu(self._embed(t, s, w))
        text = text.astype(self.dtype)
        residual = self.remat(ResidualBlock)
        transformer = self.remat(TextTransformer)
        levels = range(len(self.channels))

        def block(name: str, h: Array, level: int) -> Array:
            settings = (self.channels[level], self.groups, self.dropout, not train, self.dtype)
            return residual(*settings, name=name)(h, embedding)

        def attend(name: str, h: Array, level: int) -> Array:
            settings = (self.heads[level], self.groups, self.attention, self.dtype)
            return transformer(*settings, name=name)(h, text)

        h = conv(x.astype(self.dtype), self.channels[0], 3, self.dtype, "in_conv")
        skips = [h]
        for level in levels:
            for i in range(self.blocks):
                h = block(f"down{level}_block{i}", h, level)
                if self.attends[level]:
                    h = attend(f"down{level}_attention{i}", h, level)
                skips.append(h)
            if level < levels[-1]:
                h = halve(h, self.dtype, f"down{level}_conv")
                skips.append(h)
            self.sow("intermediates", "blocks", h)

        h = block("middle_block0", h, levels[-1])
        h = attend("middle_attention0", h, levels[-1])
        h = block("middle_block1", h, levels[-1])
        self.sow("intermediates", "blocks", h)

        for level in reversed(levels):
            for i in range(self.blocks + 1):
                h = block(f"up{level}_block{i}", jnp.concatenate([h, skips.pop()], axis=-1), level)
                if self.attends[level]:
                    h = attend(f"up{level}_attention{i}", h, level)
            if level:
                h = conv(h.repeat(2, axis=1).repeat(2, axis=2), h.shape[-1], 3, self.dtype, f"up{level}_conv")
            self.sow("intermediates", "blocks", h)

        h = nn.silu(group_norm(h, self.groups, 1e-5, jnp.float32, "out_norm"))
        return conv(h, self.latent_channels, 3, jnp.float32, "out_conv", zeros)

    def _embed(self, t: Array, s: Array | None, w: Array | None) -> Array:
        """Sinusoids of t, to which those of s and w are added by linear layers, through two layers."""
        features = self.channels[0]
        embedding = sinusoidal(t, features)
        for name, value in {"map_s": s, "map_w": w}.items():
            if value is not None:
                layer = nn.Dense(features, use_bias=False, kernel_init=zeros, name=name)
                embedding += layer(sinusoidal(value, features))
        embedding = nn.silu(dense(embedding, 4 * features, "map_layer0"))
        return dense(embedding, 4 * features, "map_layer1")

    def _check(self, x: Array, text: Array) -> None:
        batch, height, width, channels = x.shape
        factor = 2 ** (len(self.channels) - 1)
        if height % factor or width % factor:
            raise ValueError(f"latents of {height}x{width} pixels are not divisible by {factor}, the coarsest scale")
        if channels != self.latent_channels:
            raise ValueError(f"the network takes latents of {self.latent_channels} channels, got {channels}")
        if text.ndim != 3 or (text.shape[0], text.shape[2]) != (batch, self.text_features):
            raise ValueError(f"text must have shape ({batch}, length, {self.text_features}), got {text.shape}")
        if not len(self.channels) == len(self.attends) == len(self.heads):
            raise ValueError(
                "channels, attends and heads have an entry for each resolution, "
                f"got {len(self.channels)}, {len(self.attends)} and {len(self.heads)}"
            )
        for name, divisors in {"groups": [self.groups] * len(self.channels), "heads": self.heads}.items():
            if any(c % divisor for c, divisor in zip(self.channels, divisors, strict=True)):
                raise ValueError(f"{name}={getattr(self, name)} do not divide channels={self.channels}")


def stable_1_5() -> StableUNet:
    """The U-Net of Stable Diffusion 1.5, 859,520,964 parameters; its weights predict noise.

    `stable_1_5().clone(guided=True, dtype=jnp.bfloat16)` is one that takes a guidance scale, with a bfloat16 body.
    """
    return StableUNet()


def stable_2_1() -> StableUNet:
    """The U-Net of Stable Diffusion 2.1, 865,910,724 parameters: 64 features a head and another text encoder.

    The weights of 2.1 (768 x 768 pixels) predict v, those of 2.1-base (512 x 512) noise.
    """
    return StableUNet(heads=(5, 10, 20, 20), text_features=1024)
