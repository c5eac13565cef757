"""One rule that turns whatever Pillow opens into uint8 pixels with one or three channels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

# What Pillow calls images of more than eight bits; its own conversion would clip them to 255.
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def pixels(image: Image.Image, *, channels: int, size: int | None) -> UInt8[np.ndarray, "height width {channels}"]:
    """Upright uint8 pixels of an image.

    EXIF rotation is applied; transparency is laid over white; 16-bit grey is scaled to 0 .. 255; palette,
    CMYK, grey and the rest are converted by Pillow, the first frame of an animation is taken.

    Args:
        image: an opened image.
        channels: 3 for RGB, 1 for luminance.
        size: if given, the largest centred square is cut out and resized (Lanczos) to size x size.

    Raises:
        ValueError: 16-bit values outside 0 .. 65535, or floats, whose range nobody knows.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats of unknown range; store it with 8 or 16 bits")
    if image.mode in _SIXTEEN_BIT:
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its pixels run from {values.min()} to {values.max()}, not within 0 .. 65535")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))  # 65535 / 257 = 255
