"""The trunk of VGG16 as LPIPS uses it (Simonyan and Zisserman 2015; Zhang et al. 2018). Its weights are a file's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import Precision
from jaxtyping import Float, Float32


class Convolution(NamedTuple):
    """Parameters of a convolution."""

    kernel: Float32[Array, "height width channels new_channels"]
    bias: Float32[Array, " new_channels"]


VGG: TypeAlias = tuple[tuple[Convolution, ...], ...]
"""The thirteen convolutions in five stages; the features of a stage are those after its last one."""

# Number in torchvision's list `features`, channels in, channels out.
STAGES = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# The mean and deviation of ImageNet's colours on the scale of [-1, 1], as LPIPS rounds them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

max_pool = partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))
average_pool = partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2))


def lpips_features(
    params: VGG, pool: Callable[[Array], Array] = max_pool, precision: Precision | None = None
) -> Callable[[Float[Array, "batch height width channels"]], list[Array]]:
    """Build images in [-1, 1] -> five feature maps, those after relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Images have three channels, or one that is repeated, and sides of 16 or more. Maps are [B, H, W, C] with 64,
    128, 256, 512 and 512 channels, each half the size of the one before (rounded down), in float32. Under `jax.jit`
    let `params` be an argument: as constants, 59 MB of them, they cost seconds of compilation.

    Args:
        params: the trunk, as `pretrained.lpips.vgg` gives it.
        pool: from stage to stage. LPIPS takes `max_pool`; Consistency Models took `average_pool`.
        precision: of the convolutions; `Precision.HIGHEST` where the distance is a number to report.

    Raises:
        ValueError: from the function that is returned: the images are too small, or have another number of channels.
    """

    def features(images: Float[Array, "batch height width channels"]) -> list[Array]:
        h = normalised(images, least=16, network="VGG16")
        maps: list[Array] = []
        for stage in params:
            h = pool(h) if maps else h
            for layer in stage:
                h = nn.relu(convolve(h, layer, precision))
            maps.append(h)
        return maps

    return features


def normalised(
    images: Float[Array, "batch height width channels"], *, least: int, network: str
) -> Float32[Array, "batch height width 3"]:
    """Images in three channels of about unit size, as ImageNet's are.

    Raises:
        ValueError: neither 3 channels nor 1, or sides of fewer pixels than `least`.
    """
    _, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"{network} takes images of 3 channels, or 1 that is repeated; got {channels}")
    if min(height, width) < least:
        raise ValueError(
            f"{network} reduces images several times and takes sides of {least} or more, got {height}x{width}"
        )
    images = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
    return (images - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)


def convolve(h: Array, layer: Convolution, precision: Precision | None, stride: int = 1, padding: int = 1) -> Array:
    """A convolution and its bias, with as many zeros on every side."""
    return layer.bias + jax.lax.conv_general_dilated(
        h,
        layer.kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def enlarge(
    images: Float[Array, "batch height width channels"], side: int = 224, below: int = 256
) -> Float[Array, "batch new_height new_width channels"]:
    """Resize images to a square of `side` where their height is less than `below`; bilinear, half-pixel centres.

    Consistency Models compare 32 and 64 pixel images so, VGG16 having been trained at 224 (Song et al. 2023).
    """
    batch, height, _, channels = images.shape
    if height >= below:
        return images
    return jax.image.resize(images, (batch, side, side, channels), "bilinear", antialias=False)
