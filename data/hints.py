"""What a wrong array probably is: one sentence that error messages add."""

from __future__ import annotations

import numpy as np

_IMAGE_CHANNELS = (1, 3, 4)


def layout_hint(shape: tuple[int, ...]) -> str:
    """Says so when the shape of one image, without the batch axis, is not (height, width, channels)."""
    if len(shape) == 2:
        return "; a channel axis is missing, add it with image[..., None]"
    if len(shape) == 3 and shape[0] in _IMAGE_CHANNELS and shape[2] > max(_IMAGE_CHANNELS):
        return "; this looks like channels first (NCHW), use np.transpose(image, (0, 2, 3, 1))"
    return ""


def range_hint(image: np.ndarray) -> str:
    """Says which range float images have, and which expression makes uint8 images of them."""
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all():
        return "they hold values that are not finite"
    found = f"values run from {low:.4g} to {high:.4g}"
    if low >= 0 and high <= 1:
        return f"{found}, which looks like [0, 1]: store np.round(image * 255).astype(np.uint8)"
    if low >= -1 and high <= 1:
        return f"{found}, which looks like [-1, 1]: store np.round((image + 1) * 127.5).astype(np.uint8)"
    if low >= 0 and high <= 255:
        return f"{found}, which looks like 0 .. 255: store np.round(image).astype(np.uint8)"
    return f"{found}, which is no usual range of images"
