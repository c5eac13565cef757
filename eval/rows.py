"""Rows: one measured number and everything needed to say what it is, one JSON object per line on disk."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""`metric` and `value` first, then what the value depends on: n, feature, reference, nfe, step, seed, ..."""


def count_name(n: int) -> str:
    """The count at the end of a metric's name: "2k" for 2000, "50k" for 50000, "1797" for 1797."""
    return f"{n // 1000}k" if n % 1000 == 0 and n > 0 else str(n)


def append_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Append rows to a JSON-lines file, all of them in one write; a line cut short earlier stays alone.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot hold. Nothing is written.
    """
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                lines = b"\n" + lines
        file.write(lines)


def read_rows(path: str | Path) -> list[Row]:
    """Read a JSON-lines file; a line cut short by a crash is left out with a warning that names it.

    Raises:
        FileNotFoundError: no such file.
    """
    rows: list[Row] = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            warnings.warn(f"{path}, line {number} is not JSON and is left out: {line[:80]!r}", stacklevel=2)
    return rows
