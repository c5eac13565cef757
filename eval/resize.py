"""How images come to the size of the network that measures them; each way is a convention and part of a number's name.

Features of the same network, enlarged by one convention and another, differ by a hundredth, which is far more than two
good models do. All functions take images [B, H, W, C] on the scale of 0 to 255 and stay on it, unrounded.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Num
from PIL import Image


def tf1_bilinear(
    images: Num[Array, "batch height width channels"], side: int
) -> Float32[Array, "batch side side channels"]:
    """Bilinear between the pixels around i * n / side, as TensorFlow 1 resized: the FID of torch-fidelity, EDM and ADM.

    Pixels sit at whole numbers and not at their centres, so what is enlarged moves towards the upper left. What is
    reduced is not smoothed. Equal to torch-fidelity to the bit, unlike the form by `grid_sample`.
    """
    x = images.astype(jnp.float32)
    for axis in (2, 1):  # along rows first; the order is in the last bits
        size = x.shape[axis]
        position = np.arange(side, dtype=np.float32) * np.float32(size / side)
        lower = position.astype(np.int32)
        upper = np.minimum(lower + 1, size - 1)
        shape = [1, 1, 1, 1]
        shape[axis] = side
        fraction = (position - lower.astype(np.float32)).reshape(shape)
        start = jnp.take(x, lower, axis)
        x = start + (jnp.take(x, upper, axis) - start) * fraction
    return x


def torch_bilinear(
    images: Num[Array, "batch height width channels"], side: int
) -> Float32[Array, "batch side side channels"]:
    """Bilinear between the centres of pixels, not smoothed: `interpolate` of PyTorch, the FID of pytorch-fid."""
    return _resized(images, side, "bilinear", antialias=False)


def torch_bicubic(
    images: Num[Array, "batch height width channels"], side: int
) -> Float32[Array, "batch side side channels"]:
    """Bicubic between the centres of pixels, smoothed where it reduces: what EDM2 gives DINOv2."""
    return _resized(images, side, "bicubic", antialias=True)


def _resized(images: Array, side: int, method: str, *, antialias: bool) -> Array:
    batch, _, _, channels = images.shape
    x = images.astype(jnp.float32)
    return jax.image.resize(x, (batch, side, side, channels), method, antialias=antialias)


def clean_fid_bicubic(
    images: Num[np.ndarray, "batch height width channels"],
    side: int,
) -> Float32[np.ndarray, "batch side side channels"]:
    """Bicubic of each channel by Pillow, in float32 on the host: the mode `clean` of clean-fid.

    It is smoothed where it reduces and cut off at 0 and 255, not rounded.
    """
    planes = np.moveaxis(np.asarray(images, np.float32), -1, 1)
    batch, channels, height, width = planes.shape
    resized = [
        np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
        for plane in planes.reshape(-1, height, width)
    ]
    return np.moveaxis(np.reshape(resized, (batch, channels, side, side)).clip(0, 255), 1, -1)
