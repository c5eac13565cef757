"""Going back to an older checkpoint: what came after it is moved aside, and nothing is removed."""

import json
import os
import shutil
import time
from pathlib import Path

from .checkpoint import steps_in
from .refusal import Refused

FOLDERS = ("checkpoints", "snapshots")
LOGS = ("train.jsonl", "metrics.jsonl", "periodic.jsonl")


def check_step(workdir: Path, step: int) -> None:
    """Refuse a step of which there is no checkpoint.

    Raises:
        Refused: with the steps that there are.
    """
    steps = steps_in(workdir / "checkpoints")
    if step not in steps:
        raise Refused(f"no checkpoint of step {step} in {workdir / 'checkpoints'}; steps there: {steps or 'none'}")


def set_newer_aside(workdir: Path, step: int) -> Path | None:
    """Move checkpoints, snapshots and rows of logs of steps after this one to workdir/set_aside/TIME.

    Returns:
        The folder that they are in now; None if there were none.
    """
    aside = workdir / "set_aside" / time.strftime("%Y-%m-%d_%H-%M-%S")
    while aside.exists():
        aside = aside.with_name(aside.name + "_")
    for name in FOLDERS:
        for newer in steps_in(workdir / name):
            if newer > step:
                (aside / name).mkdir(parents=True, exist_ok=True)
                shutil.move(workdir / name / str(newer), aside / name / str(newer))
    for name in LOGS:
        _split_log(workdir / name, aside / name, step)
    return aside if aside.exists() else None


def _split_log(path: Path, aside: Path, step: int) -> None:
    """Rows of later steps go to the file aside; a line that a kill cut short goes with them."""
    kept: list[str] = []
    moved: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            later = json.loads(line).get("step", 0) > step
        except json.JSONDecodeError:
            later = True
        (moved if later else kept).append(line + "\n")
    if not moved:
        return
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.write_text("".join(moved))
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)
