"""What is made of a pickle besides lists, dicts, text, numbers and arrays, and how errors print any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 200  # characters, of a name in a file, and of what an error prints of a text
SIZED = (str, bytes, tuple, list, dict, set, frozenset)
KEYS = (str, int, float, bool, bytes, type(None))


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """What a file says of an object whose class this reader does not have.

    Attributes:
        name: the class, or the function that would make the object; of NVIDIA's records the class alone.
        arguments: what it would be called with.
        state: the object's attributes, mostly a dict; None if the file gives none.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __repr__(self) -> str:
        return f"Record({self.name[:LONGEST]})"


@dataclass(slots=True, eq=False, repr=False)
class Unbuilt:
    """An object that is made of its state, once; until that is given there is nothing of it."""

    build: Callable[[Any], Any]
    built: Any = None


@dataclass(slots=True, frozen=True, eq=False)
class Name:
    """What a file names: to be called, if a call makes anything, and for nothing else."""

    text: str
    make: Callable[..., Any] | None


def short(value: Any) -> str:
    """A value of a file as an error prints it. A list is not entered: it may hold one twice that holds one twice."""
    if isinstance(value, str | bytes):
        return repr(value[:LONGEST]) + "..." * (len(value) > LONGEST)
    if value is None or isinstance(value, int | float | Record):
        return repr(value)
    if isinstance(value, Name):
        return value.text
    if type(value) in (tuple, list) and len(value) <= 8 and all(type(item) in (int, str) for item in value):
        return f"({', '.join(short(item) for item in value)}{',' * (len(value) == 1)})"
    return f"a {type(value).__name__}" + (f" of {len(value):,}" if isinstance(value, SIZED) else "")


def put(target: dict[Any, Any], pairs: Iterable[Sequence[Any]]) -> None:
    """Put pairs into a dict.

    Raises:
        ValueError: one is no pair, or its key not plain.
    """
    for pair in pairs:
        if type(pair) not in (tuple, list) or len(pair) != 2:
            raise ValueError(f"a dict is given {short(pair)}, which is no pair")
        target[plain_key(pair[0])] = pair[1]


def plain_key(key: Any) -> Any:
    """A key of a dict, or an item of a set.

    Raises:
        ValueError: it is no text and no number, as hashing others may never end, or a number chosen for its hash.
    """
    if type(key) not in KEYS or (type(key) is int and abs(key) >= 2**64):
        raise ValueError(f"{short(key)} is a key of a dict or an item of a set, which plain text and numbers are")
    return key
