"""Finds on the host, in the first batch, what would train to nonsense on the device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .hints import layout_hint, range_hint

# Float images come out of divisions: allow for their rounding at both ends of [-1, 1].
_SLACK = 1e-3


def check_batch(batch: Mapping[str, object], *, shape: tuple[int, ...], num_classes: int) -> None:
    """Checks keys, shapes, dtypes, ranges and labels of a batch.

    Images are uint8, or float32 in [-1, 1].  Float arrays that are not images, so with other axes than
    (height, width, 1 or 3), are vectors or latents: they have no range and need only be finite.

    Args:
        batch: host arrays under "image" and, if num_classes > 0, under "label".
        shape: shape of one example, without the batch axis.
        num_classes: the labels the model can take are 0 .. num_classes - 1; 0 for an unconditional model, whose
            batches may have labels or not.

    Raises:
        ValueError: a missing key, a wrong shape, range or label.
        TypeError: a wrong dtype.
    """
    if "image" not in batch:
        raise ValueError(f"the batch has no 'image'; found: {', '.join(batch) or 'nothing'}")
    image = np.asarray(batch["image"])
    if image.shape[1:] != tuple(shape) or image.ndim == 0:
        hint = layout_hint(image.shape[1:])
        raise ValueError(
            f"got images of shape {image.shape[1:]} in a batch of {image.shape}, expected {tuple(shape)}{hint}"
        )
    if len(image) == 0:
        raise ValueError("the batch is empty")
    if image.dtype == np.uint8:
        _check_bytes(image)
    elif image.dtype == np.float32:
        _check_floats(image)
    else:
        raise TypeError(f"got {image.dtype} images, expected uint8 in 0 .. 255 or float32 in [-1, 1]")
    if num_classes:
        _check_labels(batch, len(image), num_classes)


def _check_bytes(image: np.ndarray) -> None:
    if image.max() == 1:
        raise ValueError("got uint8 images with no value above 1, expected 0 .. 255; were they cast from [0, 1]?")


def _check_floats(image: np.ndarray) -> None:
    wrong = np.argwhere(~np.isfinite(image))
    if wrong.size:
        place = tuple(wrong[0].tolist())
        raise ValueError(f"{len(wrong):,} values are not finite, the first is {image[place]} at index {place}")
    if image.ndim != 4 or image.shape[-1] not in (1, 3):
        return
    # No batch of real images is nowhere darker than middle grey: this one was scaled to [0, 1].
    one_sided = image.min() >= 0 and image.max() > 0
    if one_sided or np.abs(image).max() > 1 + _SLACK:
        raise ValueError(f"got float32 images outside the range of the model, [-1, 1]: {range_hint(image)}")


def _check_labels(batch: Mapping[str, object], length: int, num_classes: int) -> None:
    if "label" not in batch:
        raise ValueError(
            f"the model is conditional ({num_classes} classes), but the batch has no 'label'; found: {', '.join(batch)}"
        )
    label = np.asarray(batch["label"])
    if label.dtype != np.int32:
        raise TypeError(f"got {label.dtype} labels, expected int32")
    if label.shape != (length,):
        raise ValueError(f"got labels of shape {label.shape}, expected ({length},), one for each image")
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if wrong.size:
        raise ValueError(
            f"label {label[wrong[0]]} at index {wrong[0]} is out of range: {num_classes} classes allow"
            f" 0 .. {num_classes - 1} (on the device it would silently train another class)"
        )
