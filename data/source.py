"""What a data set is: random access to examples, and the three facts every run needs to know about it."""

from __future__ import annotations

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, UInt8


class Example(TypedDict):
    """One example; `label` is absent when the data have none."""

    image: UInt8[np.ndarray, "height width channels"]
    label: NotRequired[np.int32]


class Batch(TypedDict):
    """Examples stacked along a leading axis; `label` is absent when the data have none."""

    image: UInt8[np.ndarray, "batch height width channels"]
    label: NotRequired[Int32[np.ndarray, "batch"]]


@runtime_checkable
class Source(Protocol):
    """Random access to examples.  Reading may be slow and happens in several threads at once.

    Attributes:
        name: identity of the data (data set, version, split), part of the data fingerprint.
        shape: (height, width, channels) of every image.
        num_classes: labels lie in 0 .. num_classes - 1; 0 means that the examples have no label.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


@runtime_checkable
class TakesMany(Protocol):
    """A source that reads many examples at once faster than one by one; implementing it is optional."""

    def take(self, indices: Int[np.ndarray, "batch"]) -> Batch:
        """The examples at `indices`, in that order, as one batch."""
        ...


def take(source: Source, indices: Int[np.ndarray, "batch"]) -> Batch:
    """The examples of `source` at `indices`, in that order, as one batch."""
    if isinstance(source, TakesMany):
        return source.take(indices)
    examples = [source[int(index)] for index in indices]
    batch = Batch(image=np.stack([example["image"] for example in examples]))
    if source.num_classes:
        batch["label"] = np.asarray([example["label"] for example in examples], np.int32)
    return batch
