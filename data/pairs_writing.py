"""The pass that fills a folder with pairs of a flow, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import store
from .pairs import FORMAT_VERSION, ShardFiles, shard_files
from .writing_progress import progress

Make: TypeAlias = Callable[[np.ndarray], tuple[Any, Any, Any]]
"""make(indices int64 [B]) -> images, noise float32 [B, H, W, C], labels int32 [B]; pair i depends on i alone"""


def write_pairs(
    folder: str | Path,
    make: Make,
    *,
    name: str,
    origin: Mapping[str, Any],
    count: int,
    shape: tuple[int, ...],
    num_classes: int,
    eight_bit: bool = False,
    batch_size: int = 500,
    shard_size: int = 8_000,
) -> dict[str, Any]:
    """Make pairs, write them into a folder and return the record.

    A shard appears when it is whole, and the record when all of them have: an interrupted call is gone on with by the
    same call. Where everything is there already, nothing is done.

    Args:
        folder: created if need be.
        make: indices of pairs -> images in about [-1, 1], their noise, labels that are not looked at without classes.
            Always called with `batch_size` indices, of which the last may repeat.
        name: identity of the pairs, part of the data fingerprint.
        origin: what makes the pairs these and no others, in plain JSON values; one of them is the flow's `sha256`.
        count: pairs in all.
        shape: (height, width, channels) of an image.
        num_classes: 0 for pairs without labels.
        eight_bit: store images as uint8, a quarter of the space, clipped to [-1, 1] and rounded to 255 steps, as Lee et
            al. 2024 do. Then no flow joins them exactly with their noise; floats are as the flow made them.
        batch_size: pairs in one call.
        shard_size: pairs in one file.

    Raises:
        ValueError: the folder holds other pairs, or has begun to, or holds something else; no pairs; values that are
            not finite; labels out of range.
    """
    folder = Path(folder).expanduser()
    if count < 1 or batch_size < 1 or shard_size < 1:
        raise ValueError(f"nothing to make: {count} pairs, {batch_size=}, {shard_size=}")
    plan = store.plain(
        {
            "format_version": FORMAT_VERSION,
            "name": name,
            "origin": dict(origin),
            "count": count,
            "shape": shape,
            "num_classes": num_classes,
            "dtype": "uint8" if eight_bit else "float32",
            "shard_size": shard_size,
        }
    )
    if store.begun(folder, plan, what="pairs"):
        return plan
    starts = range(0, count, shard_size)
    missing = [start for start in starts if not shard_files(folder, start // shard_size).images.exists()]
    left = sum(min(shard_size, count - start) for start in missing)
    with progress("pairs", done=count - left, total=count) as advance:
        for start in missing:
            indices = np.arange(start, min(start + shard_size, count))
            _write_shard(shard_files(folder, start // shard_size), plan, make, indices, batch_size, advance)
    store.finish(folder, plan)
    return plan


def _write_shard(
    files: ShardFiles,
    plan: Mapping[str, Any],
    make: Make,
    indices: np.ndarray,
    batch_size: int,
    advance: Callable[[int], None],
) -> None:
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for rows in np.split(indices, range(batch_size, len(indices), batch_size)):
        # One shape, one compilation: the last batch repeats its last index, and what is too much is dropped.
        made = make(np.pad(rows, (0, batch_size - len(rows)), mode="edge"))
        image, noise, label = (np.asarray(array)[: len(rows)] for array in made)
        if not (np.isfinite(image).all() and np.isfinite(noise).all()):
            raise ValueError(f"{plan['name']}, {rows[0]} .. {rows[-1]}: NaN or infinite values")
        if plan["num_classes"] and not (label.min() >= 0 and label.max() < plan["num_classes"]):
            raise ValueError(f"{plan['name']}, {rows[0]} .. {rows[-1]}: labels out of range")
        parts.append((image, noise, label))
        advance(len(rows))
    image, noise, label = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if plan["dtype"] == "uint8":
        image = np.round((np.clip(image, -1, 1) + 1) * 127.5)
    if plan["num_classes"]:
        store.write_array(files.labels, label.astype(np.int32))
    store.write_array(files.noise, noise.astype(np.float32))
    # Last, because it says that the shard is whole.
    store.write_array(files.images, image.astype(plan["dtype"]))
