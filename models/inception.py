"""Inception-v3 as FID has it: the network of December 2015 with 1008 classes (Szegedy et al. 2015; Heusel et al. 2017).

It differs from the Inception-v3 of torchvision: averages of pools leave the padding out, the last block has a maximum
where the one before has an average, there is no auxiliary head, and 1008 classes. Parameters have torchvision's names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.lax import Precision
from jaxtyping import Float, Float32

SIDE = 299
SPATIAL_CHANNELS = 7  # of the 192, for sFID
EPSILON = 1e-3

average_pool = partial(nn.avg_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)
max_pool = partial(nn.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
halving_pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


class Taps(NamedTuple):
    """What is read off the network; a compiled function that returns one of them computes no more than that one needs.

    Attributes:
        pool64: mean over space after the first pool.
        pool192: after the second.
        pool768: after the last block of 17 x 17.
        pool2048: after the last block, the features of FID and KID.
        spatial: 17 x 17 x 7 numbers from a branch in the middle of the network, the features of sFID.
        logits_unbiased: of the 1008 classes without the bias, the Inception Score's.
        logits: with it.
    """

    pool64: Float32[Array, "batch 64"]
    pool192: Float32[Array, "batch 192"]
    pool768: Float32[Array, "batch 768"]
    pool2048: Float32[Array, "batch 2048"]
    spatial: Float32[Array, "batch 2023"]
    logits_unbiased: Float32[Array, "batch 1008"]
    logits: Float32[Array, "batch 1008"]


class InceptionV3(nn.Module):
    """Images of 299 x 299 pixels to the features of FID and its kin, in float32 at the highest precision throughout.

    `eval.resize` brings images to that size; the way it does so is part of what a number means. Statistics of the
    normalisations lie in `batch_stats` and are never updated.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"]) -> Taps:
        """All taps of images in [-1, 1], of three channels or one that is repeated.

        Raises:
            ValueError: images of another size or number of channels.
        """
        batch, height, width, channels = images.shape
        if (height, width) != (SIDE, SIDE) or channels not in (1, 3):
            told = f"3 channels, or 1 that is repeated; got {height}x{width} of {channels}"
            raise ValueError(f"Inception takes {SIDE}x{SIDE} images of {told}")
        images = jnp.broadcast_to(images.astype(jnp.float32), (batch, SIDE, SIDE, 3))
        h = Unit(32, 3, stride=2, padding="VALID", name="Conv2d_1a_3x3")(images)
        h = Unit(32, 3, padding="VALID", name="Conv2d_2a_3x3")(h)
        first = halving_pool(Unit(64, 3, name="Conv2d_2b_3x3")(h))
        h = Unit(80, 1, name="Conv2d_3b_1x1")(first)
        second = halving_pool(Unit(192, 3, padding="VALID", name="Conv2d_4a_3x3")(h))
        h = BlockA(32, name="Mixed_5b")(second)
        h = BlockA(64, name="Mixed_5c")(h)
        h = BlockA(64, name="Mixed_5d")(h)
        h = BlockB(name="Mixed_6a")(h)
        h, _ = BlockC(128, name="Mixed_6b")(h)
        h, _ = BlockC(160, name="Mixed_6c")(h)
        h, branch = BlockC(160, name="Mixed_6d")(h)
        third, _ = BlockC(192, name="Mixed_6e")(h)
        h = BlockD(name="Mixed_7a")(third)
        h = BlockE(name="Mixed_7b")(h, average_pool)
        features = space_mean(BlockE(name="Mixed_7c")(h, max_pool))
        # The bias is apart, since the Inception Score is computed without it.
        logits = nn.Dense(1008, use_bias=False, precision=Precision.HIGHEST, name="fc")(features)
        bias = self.param("fc_bias", nn.initializers.zeros, (1008,))
        return Taps(
            pool64=space_mean(first),
            pool192=space_mean(second),
            pool768=space_mean(third),
            pool2048=features,
            spatial=branch[..., :SPATIAL_CHANNELS].reshape(batch, -1),
            logits_unbiased=logits,
            logits=logits + bias,
        )


def space_mean(h: Array) -> Array:
    """Mean over height and width."""
    return h.mean(axis=(1, 2))


class Unit(nn.Module):
    """Convolution, normalisation by stored statistics, ReLU."""

    channels: int
    size: int | tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the unit."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        strides = (self.stride, self.stride)
        convolution = nn.Conv(
            self.channels, size, strides, self.padding, use_bias=False, precision=Precision.HIGHEST, name="conv"
        )
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=EPSILON, name="bn")(convolution(h)))


class BlockA(nn.Module):
    """35 x 35: branches of 1 x 1, 5 x 5 and twice 3 x 3, and of an average."""

    pool_channels: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the block."""
        five = Unit(64, 5, name="branch5x5_2")(Unit(48, 1, name="branch5x5_1")(h))
        three = Unit(96, 3, name="branch3x3dbl_2")(Unit(64, 1, name="branch3x3dbl_1")(h))
        three = Unit(96, 3, name="branch3x3dbl_3")(three)
        pool = Unit(self.pool_channels, 1, name="branch_pool")(average_pool(h))
        return jnp.concatenate([Unit(64, 1, name="branch1x1")(h), five, three, pool], axis=-1)


class BlockB(nn.Module):
    """From 35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the block."""
        one = Unit(384, 3, stride=2, padding="VALID", name="branch3x3")(h)
        two = Unit(96, 3, name="branch3x3dbl_2")(Unit(64, 1, name="branch3x3dbl_1")(h))
        two = Unit(96, 3, stride=2, padding="VALID", name="branch3x3dbl_3")(two)
        return jnp.concatenate([one, two, halving_pool(h)], axis=-1)


class BlockC(nn.Module):
    """17 x 17: branches with 7 x 7 in two steps, along one axis and the other."""

    inner: int

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, Array]:
        """Apply the block; the branch of 1 x 1 comes beside it."""
        one = Unit(192, 1, name="branch1x1")(h)
        seven = Unit(self.inner, 1, name="branch7x7_1")(h)
        seven = Unit(self.inner, (1, 7), name="branch7x7_2")(seven)
        seven = Unit(192, (7, 1), name="branch7x7_3")(seven)
        double = Unit(self.inner, 1, name="branch7x7dbl_1")(h)
        double = Unit(self.inner, (7, 1), name="branch7x7dbl_2")(double)
        double = Unit(self.inner, (1, 7), name="branch7x7dbl_3")(double)
        double = Unit(self.inner, (7, 1), name="branch7x7dbl_4")(double)
        double = Unit(192, (1, 7), name="branch7x7dbl_5")(double)
        pool = Unit(192, 1, name="branch_pool")(average_pool(h))
        return jnp.concatenate([one, seven, double, pool], axis=-1), one


class BlockD(nn.Module):
    """From 17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Apply the block."""
        three = Unit(192, 1, name="branch3x3_1")(h)
        three = Unit(320, 3, stride=2, padding="VALID", name="branch3x3_2")(three)
        seven = Unit(192, 1, name="branch7x7x3_1")(h)
        seven = Unit(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Unit(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Unit(192, 3, stride=2, padding="VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, halving_pool(h)], axis=-1)


class BlockE(nn.Module):
    """8 x 8: branches that end in 1 x 3 and 3 x 1 side by side."""

    @nn.compact
    def __call__(self, h: Array, pool: Callable[[Array], Array]) -> Array:
        """Apply the block; its two occurrences pool in different ways."""
        three = Unit(384, 1, name="branch3x3_1")(h)
        double = Unit(384, 3, name="branch3x3dbl_2")(Unit(448, 1, name="branch3x3dbl_1")(h))
        branches = [
            Unit(320, 1, name="branch1x1")(h),
            Unit(384, (1, 3), name="branch3x3_2a")(three),
            Unit(384, (3, 1), name="branch3x3_2b")(three),
            Unit(384, (1, 3), name="branch3x3dbl_3a")(double),
            Unit(384, (3, 1), name="branch3x3dbl_3b")(double),
            Unit(192, 1, name="branch_pool")(pool(h)),
        ]
        return jnp.concatenate(branches, axis=-1)
