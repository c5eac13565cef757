"""Pictures of samples: grids, and grids side by side under captions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from .images import Images

BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)


def grid(images: Images, rows: int, columns: int, *, scale: int | None = None, gap: int = 2) -> Image.Image:
    """Arrange images row by row on white; save the result with `.save("samples.png")`.

    Args:
        images: uint8 images with 1 or 3 channels; the first `rows * columns` are shown.
        rows: number of rows.
        columns: number of columns.
        scale: pixels for a pixel, without smoothing; by default tiny images grow to about 64 pixels a side.
        gap: white pixels between images.

    Returns:
        An RGB image.

    Raises:
        ValueError: there are too few images, or they have other than 1 or 3 channels.
    """
    _, height, width, channels = images.shape
    if rows < 1 or columns < 1 or len(images) < rows * columns:
        raise ValueError(f"{len(images)} images do not fill {rows} rows of {columns}")
    if channels not in (1, 3):
        raise ValueError(f"images have {channels} channels; 1 and 3 can be shown")
    scale = max(1, 64 // max(height, width)) if scale is None else scale
    tiles = np.repeat(np.repeat(images[: rows * columns], scale, axis=1), scale, axis=2)
    tiles = np.broadcast_to(tiles, (*tiles.shape[:3], 3))
    padded = np.pad(tiles, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    tall, wide = padded.shape[1:3]
    canvas = padded.reshape(rows, columns, tall, wide, 3).swapaxes(1, 2).reshape(rows * tall, columns * wide, 3)
    return Image.fromarray(np.ascontiguousarray(canvas[: rows * tall - gap, : columns * wide - gap]))


def by_class(
    images: Images, labels: Integer[np.ndarray, " n"], *, num_classes: int, columns: int
) -> UInt8[np.ndarray, "chosen height width channels"]:
    """The first `columns` images of each class, class by class: one class a row of `grid`.

    Raises:
        ValueError: a class has fewer images; names it.
    """
    chosen = []
    for label in range(num_classes):
        found = np.flatnonzero(labels == label)[:columns]
        if len(found) < columns:
            raise ValueError(f"class {label} has {len(found)} images, a row needs {columns}")
        chosen.append(images[found])
    return np.concatenate(chosen)


def labelled_panels(panels: Sequence[tuple[str, Image.Image]], *, space: int = 24) -> Image.Image:
    """Put pictures side by side, each under its caption, as "1 step", "2 steps", "real digits".

    Args:
        panels: captions and pictures, left to right; tops are aligned.
        space: white pixels around and between them.
    """
    if not panels:
        raise ValueError("there are no panels to show")
    height = max(picture.height for _, picture in panels)
    size = max(14, height // 28)
    font = ImageFont.load_default(size)
    widths = [max(picture.width, int(font.getlength(caption)) + 1) for caption, picture in panels]
    top = space + 2 * size
    canvas = Image.new("RGB", (sum(widths) + space * (len(panels) + 1), top + height + space), BACKGROUND)
    ink = ImageDraw.Draw(canvas)
    left = space
    for (caption, picture), width in zip(panels, widths, strict=True):
        ink.text((left + width / 2, space + size / 2), caption, fill=INK, font=font, anchor="mm")
        canvas.paste(picture.convert("RGB"), (left + (width - picture.width) // 2, top))
        left += width + space
    return canvas
