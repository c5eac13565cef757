"""What it cost to start, or to start again: starts.jsonl, one row for each start of a run."""

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import jax

from .agreement import is_first
from .log import read_log
from .progress import say

FILE = "starts.jsonl"


def steps_lost(workdir: Path, step: int) -> int:
    """How many steps after this one train.jsonl knows of: the least that is trained again.

    There may be more, up to the next row that the run would have written.
    """
    return max([0, *(row["step"] - step for row in read_log(workdir))])


def seconds_of_process() -> float | None:
    """How long this process has been running, Python and its imports included; None where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def report_start(workdir: Path, *, step: int, lost: int, restore_seconds: float, log_every: int) -> None:
    """Say what a start has cost once its first step is done, and keep it; of several processes the first does.

    Args:
        workdir: folder of the run.
        step: the step that it went on from; 0 is a new run.
        lost: of `steps_lost`.
        restore_seconds: reading and checking the checkpoint, or making the first state.
        log_every: steps between the rows from which `lost` is known.
    """
    if not is_first():
        return
    row: dict[str, Any] = {
        "step": step,
        "time": round(time.time(), 3),
        "steps_lost_at_least": lost,
        "restore_seconds": round(restore_seconds, 3),
        "seconds_to_first_step": None if (seconds := seconds_of_process()) is None else round(seconds, 3),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
    try:
        with (workdir / FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        warnings.warn(f"{workdir / FILE} cannot be written, training goes on: {error}", stacklevel=2)
    if step:
        first = "" if seconds is None else f", first step done {seconds:.1f} s after the process began"
        say(
            f"went on from step {step}: {lost} to {lost + log_every - 1} steps lost, restored in "
            f"{restore_seconds:.1f} s{first}"
        )
