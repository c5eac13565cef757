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
from .results_runs import RECORD, Place, arguments, final_rows, finished, plain_config, preparations

SECONDS_BETWEEN_LOOKS = 0.5


class Job(NamedTuple):
    """A run in progress; `later` are the commands that follow the one that runs now."""

    run: Run
    process: subprocess.Popen
    started: float  # time.monotonic
    first_step: int
    steps: int
    later: tuple[list[str], ...] = ()


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


def making(run: Run, place: Place) -> list[list[str]]:
    """Calls of main.py that make the folders a run needs."""
    return [[sys.executable, *command] for command in preparations(run, place)]


def train_missing(
    runs: Sequence[Run],
    place: Place,
    *,
    jobs: int,
    show: Callable[[Look], None],
    command: Callable[[Run, Place], list[str]] = lambda run, place: [sys.executable, *arguments(run, place)],
    prepare: Callable[[Run, Place], list[list[str]]] = making,
) -> dict[str, str]:
    """Bring every run to its end, `jobs` at a time, each with its share of the CPU cores.

    Args:
        runs: teachers above their students.
        place: where they lie.
        jobs: runs at the same time.
        show: called about twice a second.
        command: what to start for a run.
        prepare: what to start before, one after the other.

    Returns:
        Why they failed, by name, for the runs that did or could not be started.
    """
    waiting = [run for run in runs if finished(run, place) is None]
    done = {run.name for run in runs} - {run.name for run in waiting}
    running: list[Job] = []
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    cores = max((os.cpu_count() or 1) // jobs, 1)
    place.runs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            for run in list(waiting):
                broken = [name for name in run.needs if name in failed]
                if broken:
                    waiting.remove(run)
                    failed[run.name] = f"not started, {broken[0]} failed"
                elif len(running) < jobs and done.issuperset(run.needs) and not being_made(run, running):
                    waiting.remove(run)
                    running.append(start(run, place, [*prepare(run, place), command(run, place)], cores))
            for job in list(running):
                if job.process.poll() is None:
                    continue
                running.remove(job)
                if job.process.returncode == 0 and job.later:
                    running.append(go_on(job, place, cores))
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


def being_made(run: Run, running: Sequence[Job]) -> bool:
    """Whether another run is making a folder that this one needs too."""
    names = {store.name for job in running if job.later for store in job.run.stores.values()}
    return any(store.name in names for store in run.stores.values())


def start(run: Run, place: Place, commands: Sequence[list[str]], cores: int) -> Job:
    """Start the first of a run's commands with its output in the run's log."""
    place.log(run).write_bytes(b"")
    steps = {**plain_config(run.config), **run.values}["steps"]
    process = launch(run, place, commands[0], cores)
    return Job(run, process, time.monotonic(), last_step(place.workdir(run)), steps, tuple(commands[1:]))


def go_on(job: Job, place: Place, cores: int) -> Job:
    """Start the next of its commands."""
    return job._replace(process=launch(job.run, place, job.later[0], cores), later=job.later[1:])


def launch(run: Run, place: Place, command: list[str], cores: int) -> subprocess.Popen:
    """Start main.py.

    It has a session of its own, so that Ctrl-C reaches it as the SIGTERM that it can answer.
    """
    with place.log(run).open("ab") as log:
        # What XLA takes its threads from; --xla_cpu_multi_thread_eigen leaves them all.
        environment = os.environ | {"NPROC": str(cores)}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


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
