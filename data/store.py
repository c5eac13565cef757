"""Folders of arrays that a long pass writes shard by shard, with a record of what made them.

A shard appears when it is whole, and the record when all shards have. Until then `unfinished.json` says what is being
written, so that the same pass goes on and another one is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RECORD, UNFINISHED = "record.json", "unfinished.json"


def shard_rows(count: int, shard_size: int) -> list[int]:
    """Examples in each shard."""
    return [min(shard_size, count - start) for start in range(0, count, shard_size)]


# ---- Reading ---------------------------------------------------------------------------------------------------------


def read_record(folder: Path, *, what: str, keys: Sequence[str], format_version: int) -> dict[str, Any]:
    """The record of a finished folder of `what`, such as "latents".

    Raises:
        FileNotFoundError: no such folder, or no record.
        ValueError: the record is damaged, or of another version.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of {what} at {folder.absolute()}")
    if not (folder / RECORD).exists():
        begun = "they were begun and not finished, run the same command again" if (folder / UNFINISHED).exists() else ""
        raise FileNotFoundError(f"{folder / RECORD} is missing; {begun or f'is this a folder of {what}?'}")
    try:
        record = json.loads((folder / RECORD).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / RECORD} is not JSON: {error}") from error
    if record.get("format_version") != format_version:
        raise ValueError(f"{folder} has format {record.get('format_version')}, this version reads {format_version}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"{folder / RECORD} lacks {', '.join(missing)}; it has {sorted(record)}")
    return record


def map_array(path: Path, shape: tuple[int, ...], dtype: Any, *, remedy: str) -> np.ndarray:
    """An array of a shard, mapped into memory; `remedy` is what to do about a damaged one.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged, or of another shape or type than its record says.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}; {remedy}") from error
    if (array.shape, array.dtype) != (shape, np.dtype(dtype)):
        raise ValueError(
            f"{path} holds {array.dtype}{list(array.shape)}, its record says {np.dtype(dtype)}{list(shape)}"
        )
    return array


# ---- Writing ---------------------------------------------------------------------------------------------------------


def begun(folder: Path, plan: dict[str, Any], *, what: str) -> bool:
    """Whether the folder holds all of what is planned; claims it if it holds nothing yet.

    Raises:
        ValueError: it holds something else, or what another plan has left, with the values that differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RECORD, UNFINISHED):
        if (folder / name).exists():
            there = json.loads((folder / name).read_text())
            different = _differences({key: there.get(key) for key in plan}, plan)
            if different:
                raise ValueError(
                    f"{folder} holds other {what}; choose another folder or remove that one:\n  "
                    + "\n  ".join(different)
                )
            return name == RECORD
    if any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and has no record of {what}; choose another folder")
    _write_json(folder / UNFINISHED, plan)
    return False


def finish(folder: Path, record: dict[str, Any]) -> None:
    """All shards are there: leave the record."""
    _write_json(folder / RECORD, record)
    (folder / UNFINISHED).unlink()


def write_array(path: Path, array: np.ndarray) -> None:
    """The array is there as a whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(partial, path)


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """As it will be read again, with lists for tuples."""
    return json.loads(json.dumps(value))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(partial, path)


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """The innermost values that differ, by name."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted(there.keys() | here.keys())
        parts = [_differences(there.get(key), here.get(key), f"{name}.{key}".strip(".")) for key in keys]
        return [line for part in parts for line in part]
    return [] if there == here else [f"{name}: {there!r} there, {here!r} here"]
