"""Examples that lie decoded in memory."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from .hints import layout_hint, range_hint
from .source import Batch, Example, Source, take

# Large enough to hide the cost of handing work to a thread, small enough for a progress line that moves.
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images, and labels if there are any, as two arrays.

    Args:
        name: identity of the data, part of the data fingerprint.
        image: uint8 [n, height, width, channels].
        label: int32 [n] in 0 .. num_classes - 1, or None.
        num_classes: number of classes, 0 exactly when `label` is None.

    Raises:
        TypeError: images that are not uint8 or labels that are not int32.
        ValueError: wrong axes, lengths that differ, labels out of range.
    """

    name: str
    # Plain arrays: users make these from their own data, so the checks below run always, not only under test.
    image: np.ndarray
    label: np.ndarray | None = None
    num_classes: int = 0

    def __post_init__(self) -> None:
        _check_images(self.name, self.image)
        if self.label is not None:
            _check_labels(self.name, self.label, len(self.image), self.num_classes)
        elif self.num_classes:
            raise ValueError(f"{self.name}: num_classes is {self.num_classes}, but there are no labels")

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Example:
        if self.label is None:
            return Example(image=self.image[index])
        return Example(image=self.image[index], label=self.label[index])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        _, height, width, channels = self.image.shape
        return height, width, channels

    def take(self, indices: Int[np.ndarray, "batch"]) -> Batch:
        """The examples at `indices` as one batch, without a Python loop over them."""
        if self.label is None:
            return Batch(image=self.image[indices])
        return Batch(image=self.image[indices], label=self.label[indices])


def cached(source: Source, *, limit_bytes: int = 2**31, num_threads: int = 8) -> ArraySource:
    """Reads a small data set into memory once; name, order and content stay those of `source`.

    Shows a progress line on standard error while it works.

    Raises:
        ValueError: the decoded images need more than `limit_bytes`, or one differs from `source.shape`.
    """
    if isinstance(source, ArraySource):
        return source
    needed = len(source) * int(np.prod(source.shape))
    if needed > limit_bytes:
        raise ValueError(
            f"{source.name}: {len(source):,} decoded images need {needed / 2**20:,.0f} MiB, more than the limit of"
            f" {limit_bytes / 2**20:,.0f} MiB; raise limit_bytes or train from the source as it is"
        )
    from rich.console import Console
    from rich.progress import track

    image = np.empty((len(source), *source.shape), np.uint8)
    label = np.empty(len(source), np.int32) if source.num_classes else None
    chunks = np.split(np.arange(len(source)), range(_CHUNK, len(source), _CHUNK))
    with ThreadPoolExecutor(num_threads) as pool:
        read = pool.map(lambda indices: take(source, indices), chunks)
        console = Console(file=sys.stderr)
        for indices, batch in zip(
            track(chunks, f"reading {source.name}", console=console, transient=True), read, strict=True
        ):
            if batch["image"].shape[1:] != source.shape:
                raise ValueError(f"{source.name}: got images {batch['image'].shape[1:]}, expected {source.shape}")
            image[indices] = batch["image"]
            if label is not None:
                label[indices] = batch["label"]
    return ArraySource(source.name, image, label, source.num_classes)


def _check_images(name: str, image: np.ndarray) -> None:
    hint = layout_hint(image.shape[1:])
    if image.ndim != 4 or hint:
        raise ValueError(f"{name}: got images of shape {image.shape}, expected (n, height, width, channels){hint}")
    if np.issubdtype(image.dtype, np.floating) and image.size:
        raise TypeError(f"{name}: got {image.dtype} images, expected uint8; {range_hint(image)}")
    if image.dtype != np.uint8:
        raise TypeError(f"{name}: got {image.dtype} images, expected uint8")


def _check_labels(name: str, label: np.ndarray, length: int, num_classes: int) -> None:
    if label.shape != (length,):
        raise ValueError(f"{name}: got labels of shape {label.shape}, expected ({length},), one for each image")
    if label.dtype != np.int32:
        raise TypeError(f"{name}: got {label.dtype} labels, expected int32")
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if wrong.size:
        raise ValueError(
            f"{name}: label {label[wrong[0]]} at index {wrong[0]} is out of range,"
            f" num_classes={num_classes} allows 0 .. {num_classes - 1}"
        )
