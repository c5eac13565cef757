"""Scalars of a run: train.jsonl, one JSON object a line, and the same in TensorBoard's format."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tensorboardX import SummaryWriter


class Log(NamedTuple):
    """Two open writers of the same numbers."""

    jsonl: TextIO
    tensorboard: SummaryWriter


@contextmanager
def open_log(workdir: Path, *, step: int) -> Iterator[Log]:
    """Both writers, to go on after `step`; rows a killed run wrote beyond its last checkpoint are dropped."""
    path = workdir / "train.jsonl"
    rows = read_log(workdir)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
    with path.open("a", buffering=1) as jsonl:
        try:
            yield Log(jsonl, tensorboard)
        finally:
            tensorboard.close()


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """Rows of train.jsonl in order; a last line cut short by a kill is left out."""
    path = workdir / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write(log: Log, step: int, scalars: dict[str, float]) -> None:
    """Write one row; "step" and "time" (seconds since 1970) are added."""
    log.jsonl.write(json.dumps({"step": step, "time": round(time.time(), 3)} | scalars) + "\n")
    for name, value in scalars.items():
        log.tensorboard.add_scalar(name, value, step)
