"""Scalars of a run: train.jsonl, one JSON object a line, and the same in TensorBoard's format."""

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from .agreement import is_first

Write = Callable[[int, dict[str, float]], None]
"""(step, scalars) -> writes one row; "step" and "time" (seconds since 1970) are added."""


@contextmanager
def open_log(workdir: Path, *, step: int) -> Iterator[Write]:
    """A log to go on after `step`; rows a killed run wrote beyond its last checkpoint are dropped.

    The first process writes, the others do nothing. A log that cannot be written, now or later, is warned of once, and
    the training goes on without it.
    """
    if not is_first():
        yield lambda step, scalars: None
        return
    jsonl = _forgiving("train.jsonl", _jsonl(workdir, step))
    with jsonl as write_row, _forgiving("TensorBoard's log", _tensorboard(workdir, step)) as write_events:

        def write(step: int, scalars: dict[str, float]) -> None:
            write_row(step, scalars)
            write_events(step, scalars)

        yield write


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """Rows of train.jsonl in order; a last line cut short by a kill is left out."""
    path = workdir / "train.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@contextmanager
def _jsonl(workdir: Path, step: int) -> Iterator[Write]:
    path = workdir / "train.jsonl"
    rows = read_log(workdir)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    os.replace(partial, path)
    with path.open("ab", buffering=0) as file:

        def write(step: int, scalars: dict[str, float]) -> None:
            file.write((json.dumps({"step": step, "time": round(time.time(), 3)} | scalars) + "\n").encode())

        yield write


@contextmanager
def _tensorboard(workdir: Path, step: int) -> Iterator[Write]:
    before = set(threading.enumerate())
    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
    threads = set(threading.enumerate()) - before

    # An error ends its thread, and from then on whoever hands something over would wait for ever.
    def alive() -> bool:
        return all(thread.is_alive() for thread in threads)

    def write(step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            if not alive():
                raise OSError("the thread that writes it has ended")
            writer.add_scalar(name, value, step)

    yield write
    if alive():
        writer.close()


@contextmanager
def _forgiving(name: str, log: AbstractContextManager[Write]) -> Iterator[Write]:
    """A log that is given up at its first error."""
    failed = False

    def give_up(error: Exception) -> None:
        nonlocal failed
        failed = True
        warnings.warn(f"{name} cannot be written and is given up, training goes on: {error}", stacklevel=3)

    def write(step: int, scalars: dict[str, float]) -> None:
        if failed:
            return
        try:
            write_to(step, scalars)
        except OSError as error:
            give_up(error)

    with ExitStack() as opened:
        try:
            write_to = opened.enter_context(log)
        except OSError as error:
            give_up(error)
        yield write
        try:
            opened.close()
        except OSError as error:
            give_up(error)
