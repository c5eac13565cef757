"""Bring the runs of a table of results to their end, a teacher before its students.

A failed run stops those that need it and no others.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from train import read_log

from .results_rows import Run
from .results_runs import RECORD, Place, commands, final_rows, finished, plain_config

SECONDS_BETWEEN_LOOKS = 0.5


class Job(NamedTuple):
    """A run in progress, and the commands that come after the one that is running."""

    run: Run
    process: subprocess.Popen
    following: tuple[list[str], ...]
    started: float  # time.monotonic
    first_step: int
    steps: int


class Look(NamedTuple):
    """How far everything is, as often as one looks.

    Attributes:
        jobs: running now, each with its step.
        done: number of runs that are done.
        waiting: runs that have not begun.
        failed: why, by name.
        seconds: how long each run of this session took that is done, by name.
    """

    jobs: tuple[tuple[Job, int], ...]
    done: int
    waiting: tuple[Run, ...]
    failed: Mapping[str, str]
    seconds: Mapping[str, float]


def train_missing(
    runs: Sequence[Run],
    place: Place,
    *,
    jobs: int,
    show: Callable[[Look], None],
    calls: Callable[[Run, Place], list[list[str]]] | None = None,
) -> dict[str, str]:
    """Bring every run to its end, `jobs` at a time, each with its share of the CPU cores.

    Args:
        runs: teachers above their students.
        place: where they lie.
        jobs: runs at the same time.
        show: called about twice a second.
        calls: what to start for a run, one after the other; main.py by default.

    Returns:
        Why they failed, by name, for the runs that did or could not be started.
    """
    waiting = [run for run in runs if finished(run, place) is None]
    needed = {name for run in waiting for name in run.teachers.values()}
    waiting = [run for run in runs if run in waiting or needed.intersection(run.makes)]
    done = {run.name for run in runs if run not in waiting}
    makers = {name: run.name for run in runs for name in run.names()}
    running: list[Job] = []
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    cores = max((os.cpu_count() or 1) // jobs, 1)
    place.runs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            for run in list(waiting):
                teachers = [makers[name] for name in run.teachers.values()]
                broken = [teacher for teacher in teachers if teacher in failed]
                if broken:
                    waiting.remove(run)
                    failed[run.name] = f"not started, {broken[0]} failed"
                elif len(running) < jobs and done.issuperset(teachers):
                    waiting.remove(run)
                    running.append(start(run, place, (calls or python_calls)(run, place), cores))
            for job in list(running):
                if job.process.poll() is None:
                    continue
                running.remove(job)
                if job.process.returncode == 0 and job.following:
                    process = call(job.following[0], place.log(job.run), "ab", cores)
                    running.append(job._replace(process=process, following=job.following[1:]))
                    continue
                reason = end(job, place, cores)
                if reason is None:
                    done.add(job.run.name)
                    seconds[job.run.name] = time.monotonic() - job.started
                else:
                    failed[job.run.name] = reason
            now = tuple((job, last_step(place.workdir(job.run))) for job in running)
            show(Look(now, len(done), tuple(waiting), dict(failed), dict(seconds)))
            if running:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        # The trainer answers SIGTERM with a checkpoint, so that nothing is lost.
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()
    return failed


def python_calls(run: Run, place: Place) -> list[list[str]]:
    """What is left of a run, by the interpreter that this is."""
    return [[sys.executable, *command] for command in commands(run, place)]


def start(run: Run, place: Place, commands: Sequence[list[str]], cores: int) -> Job:
    """Start the first of the commands with its output in the run's log."""
    first, *following = commands
    process = call(first, place.log(run), "wb", cores)
    steps = {**plain_config(run.config), **run.values}["steps"]
    return Job(run, process, tuple(following), time.monotonic(), last_step(place.workdir(run)), steps)


def call(command: list[str], log: Path, mode: str, cores: int) -> subprocess.Popen:
    """Start a command in a session of its own, so that Ctrl-C reaches it as the SIGTERM that it can answer."""
    with log.open(mode) as file:
        # What XLA takes its threads from; --xla_cpu_multi_thread_eigen leaves them all.
        environment = os.environ | {"NPROC": str(cores)}
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def end(job: Job, place: Place, cores: int) -> str | None:
    """Record that a run is done, or say why it is not."""
    workdir, log = place.workdir(job.run), place.log(job.run)
    if job.process.returncode != 0:
        return f"exit code {job.process.returncode}, see {log}: {last_words(log)}"
    try:
        rows = final_rows(job.run, place)
    except FileNotFoundError:
        rows = []
    if not rows:
        return f"ended without final rows in {workdir / 'metrics.jsonl'}, see {log}"
    trained_here = job.first_step < job.steps
    if trained_here or not (workdir / RECORD).exists():
        (workdir / RECORD).write_text(json.dumps({"cores": cores if trained_here else None}) + "\n")
    return None


def last_step(workdir: Path) -> int:
    """The last step in a run's log; 0 before the first."""
    rows = read_log(workdir)
    return rows[-1]["step"] if rows else 0


def last_words(log: Path) -> str:
    """Why main.py gave up: its own refusal, which may have several lines, or the last line of a traceback."""
    lines = log.read_text(errors="replace").rstrip().splitlines() or [""]
    start = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
    return "\n".join(lines[start:])
