"""What a resumed run compares, so that other data or another order are never continued silently."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .order import endless_order
from .source import Source

_PROBES = 16
_ORDER_PROBES = 64  # positions; a release of grain that shuffles differently shows in the first few


def fingerprint(source: Source, *, seed: int, batch_size: int) -> dict[str, Any]:
    """Identity of data and order as plain JSON values; equal fingerprints give equal batches.

    The content hash reads 16 examples spread over the data set: cheap, and enough to notice other data,
    another sorting or another decoding, but not a change in a single example.
    """
    digest = hashlib.sha256()
    if len(source):
        for index in np.linspace(0, len(source) - 1, _PROBES).astype(int):
            example = source[int(index)]
            digest.update(np.ascontiguousarray(example["image"]).tobytes())
            digest.update(str(int(example.get("label", -1))).encode())
    return {
        "name": source.name,
        "length": len(source),
        "shape": list(source.shape),
        "num_classes": source.num_classes,
        "content": digest.hexdigest()[:16],
        "seed": seed,
        "batch_size": batch_size,
        "order": _order_hash(len(source), seed),
    }


def _order_hash(length: int, seed: int) -> str:
    if not length:
        return "empty"
    order = endless_order(length, seed=seed)
    return hashlib.sha256(str([int(order[position]) for position in range(_ORDER_PROBES)]).encode()).hexdigest()[:16]
