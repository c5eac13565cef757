"""The trunk of VGG16 as LPIPS uses it (Simonyan and Zisserman 2015; Zhang et al. 2018). The weights are a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32


class Convolution(NamedTuple):
    """Parameters of a 3 x 3 convolution."""

    kernel: Float32[Array, "3 3 channels new_channels"]
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
    params: VGG, pool: Callable[[Array], Array] = max_pool
) -> Callable[[Float[Array, "batch height width channels"]], list[Array]]:
    """Build images in [-1, 1] -> five feature maps, those after relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Images have three channels, or one that is repeated, and sides of 16 or more. Maps are [B, H, W, C] with 64,
    128, 256, 512 and 512 channels, each half the size of the one before (rounded down), in float32. Under `jax.jit`
    let `params` be an argument: as constants, 59 MB of them, they cost seconds of compilation.

    Args:
        params: the trunk, as `read_lpips` gives it.
        pool: from stage to stage. LPIPS takes `max_pool`; Consistency Models took `average_pool`.

    Raises:
        ValueError: from the function that is returned: the images are too small, or have another number of channels.
    """

    def features(images: Float[Array, "batch height width channels"]) -> list[Array]:
        _, height, width, channels = images.shape
        if channels not in (1, 3):
            raise ValueError(f"VGG16 takes images of 3 channels, or 1 that is repeated; got {channels}")
        if min(height, width) < 16:
            raise ValueError(f"VGG16 halves images four times and takes sides of 16 or more, got {height}x{width}")
        images = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
        h = (images - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        maps: list[Array] = []
        for stage in params:
            h = pool(h) if maps else h
            for layer in stage:
                h = nn.relu(_convolve(h, layer))
            maps.append(h)
        return maps

    return features


def _convolve(h: Array, layer: Convolution) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(h, layer.kernel, (1, 1), "SAME", dimension_numbers=dimensions) + layer.bias


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


def read_lpips(path: str | Path) -> tuple[VGG, tuple[Float32[Array, " channels"], ...]]:
    """Read the trunk and the weights of the five layers from one .npz file; other arrays in it are ignored.

    The names are torchvision's: `features.0.weight` [out, in, 3, 3] and `features.0.bias` [out], and so on up to
    `features.28`, with the weights of LPIPS beside them as `lin0` [64] to `lin4` [512]. Nothing is unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an npz file of plain arrays; or arrays are missing, of another shape, not finite, or (the
            weights of a layer) negative; all of them are listed.
    """
    arrays = _read_npz(path)
    layers = [layer for stage in STAGES for layer in stage]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, channels, new_channels in layers:
        shapes[f"features.{number}.weight"] = (new_channels, channels, 3, 3)
        shapes[f"features.{number}.bias"] = (new_channels,)
    shapes |= {f"lin{i}": (stage[-1][-1],) for i, stage in enumerate(STAGES)}
    faults = [fault for name, shape in shapes.items() if (fault := _fault(name, shape, arrays.get(name)))]
    if faults:
        raise ValueError(f"{path}: not the trunk and layer weights of LPIPS:\n" + "\n".join(faults))

    def convolution(number: int) -> Convolution:
        kernel, bias = arrays[f"features.{number}.weight"], arrays[f"features.{number}.bias"]
        return Convolution(jnp.asarray(kernel.transpose(2, 3, 1, 0), jnp.float32), jnp.asarray(bias, jnp.float32))

    trunk = tuple(tuple(convolution(number) for number, _, _ in stage) for stage in STAGES)
    return trunk, tuple(jnp.asarray(arrays[f"lin{i}"], jnp.float32) for i in range(len(STAGES)))


def _read_npz(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable npz file of plain arrays: {error}") from error


def _fault(name: str, shape: tuple[int, ...], array: np.ndarray | None) -> str | None:
    if array is None:
        return f"{name} is missing"
    if array.shape != shape:
        return f"{name} has shape {array.shape}, expected {shape}"
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        return f"{name} holds something else than finite floating-point numbers ({array.dtype})"
    if name.startswith("lin") and (array < 0).any():
        return f"{name} holds negative weights"
    return None
