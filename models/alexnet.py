"""The trunk of AlexNet as LPIPS uses it (Krizhevsky 2014; Zhang et al. 2018). Its weights are a file's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import flax.linen as nn
from jax import Array
from jax.lax import Precision
from jaxtyping import Float

from .vgg import Convolution, convolve, normalised

AlexNet: TypeAlias = tuple[Convolution, ...]
"""The five convolutions; there are features after each."""


class Layer(NamedTuple):
    """Shape of a convolution, and its number in torchvision's list `features`."""

    number: int
    channels: int
    new_channels: int
    size: int


LAYERS = (
    Layer(0, 3, 64, size=11),
    Layer(3, 64, 192, size=5),
    Layer(6, 192, 384, size=3),
    Layer(8, 384, 256, size=3),
    Layer(10, 256, 256, size=3),
)
POOLED = (1, 2)  # the layers that a pool comes before

pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


def lpips_features(
    params: AlexNet, precision: Precision | None = None
) -> Callable[[Float[Array, "batch height width channels"]], list[Array]]:
    """Build images in [-1, 1] -> five feature maps, those after each convolution and its ReLU.

    Images have three channels, or one that is repeated, and sides of 31 or more. Maps are [B, H, W, C] with 64, 192,
    384, 256 and 256 channels, in float32; the first has a quarter of the pixels in each direction, the second an
    eighth, and the others a sixteenth.

    Args:
        params: the trunk, as `pretrained.lpips.alexnet` gives it.
        precision: of the convolutions; `Precision.HIGHEST` where the distance is a number to report.

    Raises:
        ValueError: from the function that is returned: the images are too small, or have another number of channels.
    """

    def features(images: Float[Array, "batch height width channels"]) -> list[Array]:
        h = normalised(images, least=31, network="AlexNet")
        maps: list[Array] = []
        for i, layer in enumerate(params):
            h = pool(h) if i in POOLED else h
            stride, padding = (1, len(layer.kernel) // 2) if i else (4, 2)
            h = nn.relu(convolve(h, layer, precision, stride, padding))
            maps.append(h)
        return maps

    return features
