"""Going on without the few examples of a large data set that cannot be read."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from .source import Batch, Example, Source, take

# What sources raise for a broken file or record; an index that does not exist is somebody's mistake and is not skipped.
UNREADABLE = (OSError, ValueError, RuntimeError)


@dataclass(frozen=True, eq=False)
class SkippingSource:
    """A source in which the next readable example stands for one that is not; made by `skip_unreadable`.

    Attributes:
        source: the data.
        at_most: how many examples may be unreadable, in each process that reads.
        skipped: what was wrong with each of those found so far, by index.
    """

    source: Source
    at_most: int
    skipped: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which no process can have from another one."""
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.Lock())

    @property
    def name(self) -> str:
        """Identity of the data."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.source.shape

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return self.source.num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has no example {index}, only 0 .. {len(self) - 1}")
        for candidate in (position % len(self) for position in range(index, index + len(self))):
            try:
                return self.source[candidate]
            except UNREADABLE as error:
                self._skip(candidate, error)
        raise ValueError(f"{self.name} has no example that can be read")

    def take(self, indices: Int[np.ndarray, "batch"]) -> Batch:
        """The examples at `indices` as one batch, one by one only if some cannot be read."""
        try:
            return take(self.source, indices)
        except UNREADABLE:
            examples = [self[int(index)] for index in indices]
        batch = Batch(image=np.stack([example["image"] for example in examples]))
        if self.num_classes:
            batch["label"] = np.asarray([example["label"] for example in examples], np.int32)
        return batch

    def _skip(self, index: int, error: Exception) -> None:
        with self.lock:
            if index in self.skipped:
                return
            self.skipped[index] = str(error)
            count = len(self.skipped)
        if count > self.at_most:
            raise RuntimeError(
                f"{self.name}: {count} examples cannot be read, {self.at_most} may be skipped; the last is {index}: "
                f"{error}"
            ) from error
        warnings.warn(f"{self.name}: skipped example {index}, {count} of at most {self.at_most}: {error}", stacklevel=2)


def skip_unreadable(source: Source, *, at_most: int) -> Source:
    """The same source, with the next readable example in place of one that cannot be read.

    Which example that is depends on the data alone, so that a resumed run reads the same. Each one skipped is warned of
    once, with its index and what was wrong.

    Args:
        source: any source.
        at_most: how many of its examples may be unreadable; 0 gives the source itself, whose first error ends all.

    Raises:
        ValueError: a negative number.
        RuntimeError: when an example is read: too many cannot be.
    """
    if at_most < 0:
        raise ValueError(f"at_most is {at_most}, it must not be negative")
    return SkippingSource(source, at_most) if at_most else source
