"""What a run does every so many steps besides training: what is due, what came of it, what a stop has left undone."""

import json
import traceback
import warnings
from pathlib import Path
from typing import Any

import jax

from .agreement import gather_texts, is_first
from .experiment import Experiment, Params
from .log import Write
from .progress import say

FILE = "periodic.jsonl"


def due_at(experiment: Experiment, step: int, *, last: bool) -> list[int]:
    """What is due at a step, by its place in `experiment.periodic`."""
    return [index for index, periodic in enumerate(experiment.periodic) if last or step % periodic.every == 0]


def left_at(experiment: Experiment, workdir: Path, step: int) -> list[int]:
    """What was due at the step of a checkpoint and did not come to its end; all processes ask this together."""
    due = due_at(experiment, step, last=step == experiment.steps) if step else []
    if not due:
        return []
    done = [row["index"] for row in _rows(workdir) if row["step"] == step]
    done = json.loads(gather_texts(json.dumps(done))[0])  # all processes go by what the first one sees
    return [index for index in due if index not in done]


def carry_out(
    experiment: Experiment, index: int, workdir: Path, step: int, params: dict[str, Params], write_log: Write
) -> None:
    """Do what is due, log its scalars, and keep a row of it: a failure ends no run, as the next start would fail too.

    Raises:
        ValueError, OSError: of several processes, where the others may be waiting in what this one has left.
    """
    periodic = experiment.periodic[index]
    row: dict[str, Any] = {"step": step, "index": index, "name": periodic.name}
    scalars: dict[str, float] = {}
    try:
        scalars = periodic.run(workdir, step, params)
    except (ValueError, OSError) as error:  # what samples and disks bring about; others are errors of the program
        if jax.process_count() > 1:
            raise
        row |= {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        say(f"step {step}: {periodic.name} failed and is left out, training goes on: {row['failed']}")
    if scalars:
        write_log(step, scalars)
    _keep(workdir, row)


def tell_failures(workdir: Path) -> None:
    """Say how much of it has failed in the whole run, if any has."""
    rows = list({(row["step"], row["index"]): row for row in _rows(workdir)}.values())
    if failed := [row for row in rows if "failed" in row]:
        say(
            f"{len(failed)} of {len(rows)} evaluations and the like have failed, the last one {failed[-1]['name']} at "
            f"step {failed[-1]['step']}: {failed[-1]['failed']}; all are in {workdir / FILE}"
        )


def _keep(workdir: Path, row: dict[str, Any]) -> None:
    if not is_first():
        return
    try:
        with (workdir / FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        warnings.warn(f"{workdir / FILE} cannot be written, training goes on: {error}", stacklevel=2)


def _rows(workdir: Path) -> list[dict[str, Any]]:
    path, rows = workdir / FILE, []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # cut short by a full disk; what it told of is done again
            continue
    return rows
