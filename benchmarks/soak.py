"""Kill a run at random times, over and over; it must end with the bits of a run that nobody killed.

    python -m benchmarks.soak --minutes 30 --seed 0

A small digits run is trained once without interruption. Then it is trained again in another folder by the same command,
and again and again killed, by SIGKILL or by SIGTERM: half of the times at a time drawn uniformly from a little more
than what a whole run took, which hits start-up, compilation and judging too, and else within what its training took,
counted from the first step. Once it has finished, its last checkpoint and its metrics are compared with those of the
first run, and the next round begins with an empty folder, until the time is up. The seed decides signals and times;
what is running at such a time is up to the machine.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import train
from train.checkpoint import LEFTOVER, open_checkpoints, steps_in
from train.reading import restore_as_numpy

ROOT = Path(__file__).parents[1]
SECONDS_TO_STOP = 120.0  # for a SIGTERM to be answered, on a busy machine
STRETCH = 1.2  # kills come within this many times what the uninterrupted run took


@dataclass
class Tally:
    """What happened.

    Attributes:
        seconds: of an uninterrupted run, the shortest so far.
        training_seconds: of its training alone, from the first step to the last.
        rounds: runs that were killed until they ended, and compared.
        kills: by signal.
        during_a_save: SIGKILLs that left an unfinished checkpoint behind.
        stopped: SIGTERMs that were answered by a checkpoint; the others came before the first step, or while judging.
        steps_lost: at least so many, for each start that went on from a checkpoint.
        seconds_to_first_step: of the same starts.
    """

    seconds: float = 0.0
    training_seconds: float = 0.0
    rounds: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    during_a_save: int = 0
    stopped: int = 0
    steps_lost: list[int] = field(default_factory=list)
    seconds_to_first_step: list[float] = field(default_factory=list)


def command(workdir: Path, steps: int) -> list[str]:
    """A digits run of a few seconds that saves often."""
    values = {
        "steps": steps,
        "width": 16,
        "depth": 1,
        "judged_samples": 130,
        "checkpoint_every": max(steps // 20, 1),
        "snapshot_every": max(steps // 8, 1),
        "grid_every": max(steps // 2, 1),
        "log_every": 5,
        "grids": ((80.0,),),
    }
    run = [sys.executable, "main.py", "--config", "configs/digits.py", "--workdir", str(workdir)]
    return run + [f"--config.{name}={value}" for name, value in values.items()]


def start(workdir: Path, steps: int) -> subprocess.Popen:
    """The run in a process of its own, its output in a file beside the folder; what it compiles is kept."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str((workdir.parent / "compiled").absolute())}
    with workdir.with_suffix(".log").open("a") as output:
        return subprocess.Popen(
            command(workdir, steps), cwd=ROOT, env=os.environ | kept, stdout=output, stderr=subprocess.STDOUT
        )


def killed_run(workdir: Path, steps: int, tally: Tally, rng: random.Random, *, enough: "Enough") -> None:
    """Train in a folder, killed at random until there is enough of that, and to the end.

    Raises:
        RuntimeError: the run ended by itself with an error.
    """
    while True:
        begun, new = time.monotonic(), not workdir.exists()
        process = start(workdir, steps)
        by, in_training, share = rng.choice((signal.SIGKILL, signal.SIGTERM)), rng.random() < 0.5, rng.random()
        wait = STRETCH * share * (tally.training_seconds if in_training else tally.seconds)
        if in_training and not enough(tally):
            wait_for_first_step(process, workdir)
        try:
            code = process.wait(None if enough(tally) else wait)
        except subprocess.TimeoutExpired:
            process.send_signal(by)
            tally.kills[by.name] = tally.kills.get(by.name, 0) + 1
            try:
                code = process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RuntimeError(f"SIGTERM was not answered in {SECONDS_TO_STOP:g} s, see {workdir}.log") from None
            if by == signal.SIGKILL:
                tally.during_a_save += any(workdir.glob(f"*/*{LEFTOVER}*"))
            else:
                tally.stopped += code == 0
            if code not in (0, -by):
                raise RuntimeError(f"{by.name} ended the run with code {code}, see {workdir}.log") from None
            continue
        if code != 0:
            raise RuntimeError(f"the run ended with code {code}, see {workdir}.log")
        if new:  # the first run of all compiled everything, those after it need not
            tally.seconds = min(tally.seconds, time.monotonic() - begun)
        return


def starts_of(workdir: Path) -> list[dict[str, Any]]:
    """The rows of starts.jsonl."""
    path = workdir / "starts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_first_step(process: subprocess.Popen, workdir: Path) -> None:
    """Return once the process has taken a step, or has ended."""
    before = len(starts_of(workdir))
    while process.poll() is None and len(starts_of(workdir)) == before:
        time.sleep(0.05)


class Enough:
    """Whether the time is up, or the number of kills reached."""

    def __init__(self, *, seconds: float, kills: int | None) -> None:
        self.end, self.kills = time.monotonic() + seconds, kills

    def __call__(self, tally: Tally) -> bool:
        """Whether nothing more is killed."""
        return time.monotonic() > self.end or (self.kills is not None and sum(tally.kills.values()) >= self.kills)


def compare(whole: Path, killed: Path, steps: int) -> None:
    """Hold the last checkpoints, and what the samples were judged to be, against each other.

    Raises:
        ValueError: naming what differs.
    """
    saved = []
    for workdir in (whole, killed):
        if (found := steps_in(workdir / "checkpoints")[-1]) != steps:
            raise ValueError(f"{workdir} ended at step {found} of {steps}")
        with open_checkpoints(workdir / "checkpoints", keep=None) as checkpoints:
            saved.append(restore_as_numpy(checkpoints, steps))
    if missing := saved[0].keys() ^ saved[1].keys():
        raise ValueError(f"{killed} does not equal {whole}: {sorted(missing)} are in one of them alone")
    different = [name for name in saved[0] if saved[0][name].tobytes() != saved[1][name].tobytes()]
    if different:
        raise ValueError(f"{killed} does not equal {whole}: {different}")
    judged = []
    for workdir in (whole, killed):
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        judged.append({(row["metric"], row["sampler"]): row["value"] for row in rows})
    if judged[0] != judged[1]:
        raise ValueError(f"samples of {killed} were not judged as those of {whole}")


def soak(folder: Path, *, steps: int, minutes: float, seed: int, kills: int | None = None) -> Tally:
    """Rounds of killed runs in a folder, until the time is up or there were so many kills.

    Raises:
        RuntimeError: a run ended by itself with an error.
        ValueError: a run did not end as the uninterrupted one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tally, rng = Tally(), random.Random(seed)
    begun = time.monotonic()
    if start(folder / "whole", steps).wait() != 0:
        raise RuntimeError(f"the uninterrupted run failed, see {folder / 'whole'}.log")
    tally.seconds = time.monotonic() - begun
    tally.training_seconds = train.read_log(folder / "whole")[-1]["time"] - starts_of(folder / "whole")[0]["time"]
    enough = Enough(seconds=60 * minutes, kills=kills)
    while not enough(tally):
        killed = folder / f"round_{tally.rounds}"
        killed_run(killed, steps, tally, rng, enough=enough)
        compare(folder / "whole", killed, steps)
        tally.rounds += 1
        for row in (row for row in starts_of(killed) if row["step"]):
            tally.steps_lost.append(row["steps_lost_at_least"])
            tally.seconds_to_first_step.append(row["seconds_to_first_step"])
        train.say(
            f"{(time.monotonic() - begun) / 60:.1f} min: {tally.rounds} rounds, {tally.kills}, "
            f"{tally.during_a_save} during a save, all equal"
        )
    return tally


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--kills", type=int, help="stop after so many, if that comes first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--workdir", type=Path, default=Path("runs/soak"))
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    given = parser.parse_args()
    tally = soak(given.workdir, steps=given.steps, minutes=given.minutes, seed=given.seed, kills=given.kills)
    facts = asdict(tally)
    if given.out:
        given.out.write_text(json.dumps(facts, indent=2) + "\n")
    Console().print_json(data={name: value for name, value in facts.items() if not isinstance(value, list)})
    if tally.steps_lost:
        print(f"steps lost at a start: {np.mean(tally.steps_lost):.1f}, at most {max(tally.steps_lost)}")
        print(f"seconds to the first step: {np.median(tally.seconds_to_first_step):.1f} in the median")


if __name__ == "__main__":
    main()
