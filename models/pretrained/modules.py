"""The tensors of a module of torch that a file holds as an object, under their names in its state dict."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from .values import Record, short

DEEPEST = 100  # modules within modules
MOST_PARTS = 100_000  # modules, parameters and buffers, each counted as often as it has a name
LONGEST = 1000  # characters of a name


def state_dict(module: Record) -> dict[str, np.ndarray]:
    """The tensors of a module under their names in its state dict, buffers among them.

    Raises:
        ValueError: the record is not that of a module, or its parts, of which one may be in several others, have more
            names than those of any network.
    """
    tensors = {}
    for count, (name, tensor) in enumerate(_parts(module, "", 0)):
        if count == MOST_PARTS or len(name) > LONGEST:
            raise ValueError(f"the module has more than {MOST_PARTS:,} parts, or one of a longer name than {LONGEST}")
        if tensor is not None:
            tensors[name] = tensor
    return tensors


def _parts(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """Names of all parts, with the tensors that are in a state dict."""
    state = module.state if isinstance(module, Record) else None
    parts = ("_parameters", "_buffers", "_modules")
    if type(state) is not dict or not all(type(state.get(part)) is dict for part in parts):
        raise ValueError(f"{prefix or 'the object'} is {short(module)}, which is no module")
    if depth > DEEPEST:
        raise ValueError(f"{prefix} is a module within more than {DEEPEST} others")
    skipped = state.get("_non_persistent_buffers_set")
    skipped = skipped if isinstance(skipped, set | frozenset) else ()
    for name, tensor in chain(state["_parameters"].items(), state["_buffers"].items()):
        kept = isinstance(tensor, np.ndarray) and name not in skipped
        yield f"{prefix}{name}", tensor if kept else None
    for name, child in state["_modules"].items():
        yield f"{prefix}{name}", None
        if child is not None:
            yield from _parts(child, f"{prefix}{name}.", depth + 1)
