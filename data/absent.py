"""A data set that is not here: its facts are known, so that a run of it can be built and looked at."""

from __future__ import annotations

from dataclasses import dataclass

from .source import Example


@dataclass(frozen=True, eq=False)
class AbsentSource:
    """The shape and classes of data that nobody has prepared; made by `absent`.

    Attributes:
        name: identity of the data.
        shape: (height, width, channels) that every example would have.
        num_classes: number of classes, 0 without labels.
        reason: why the data are not here and what to do about it.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    reason: str

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Example:
        raise FileNotFoundError(f"{self.name} is not here: {self.reason}")


def absent(name: str, shape: tuple[int, int, int], num_classes: int, reason: str) -> AbsentSource:
    """A source of no examples in the place of data that are not at hand.

    Args:
        name: identity of the data.
        shape: (height, width, channels) that every example would have.
        num_classes: number of classes, 0 without labels.
        reason: what to prepare and how to give it; the text of the error below.

    Raises:
        FileNotFoundError: when an example is read, whichever it is.
        ValueError: a shape without three positive sizes, a negative number of classes, an empty reason.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape is {shape}, it must be (height, width, channels), each at least 1")
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}, it must not be negative")
    if not reason:
        raise ValueError("reason is empty; it must say what to prepare, since it is all that the user is told")
    return AbsentSource(name, shape, num_classes, reason)
