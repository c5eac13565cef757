"""Runs of the results page that a few lines of Python pretend to train, and runs that only exist as numbers."""

import json
import sys

from benchmarks import results_runs, results_training
from benchmarks.results_rows import Run, Table
from benchmarks.results_runs import Finished

VALUES = {"steps": 10, "batch_size": 4, "seed": 0, "judged_samples": 20, "segments": 1, "teacher_run": ""}
TEACHER = Run("teacher", "the teacher", "A 2022", "tiny")
STUDENT = Run("student", "the student", "B 2023", "tiny", {"seed": 5}, {"teacher_run": "teacher"})
OTHER = Run("other", "the other", "C 2024", "tiny")

# Leaves what main.py leaves: a log of training, the record of the run, rows of one sampler.
PRETEND = """
import json, pathlib, sys, time
workdir, config, behaviour = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
workdir.mkdir(exist_ok=True)
with open(workdir.parent / "order.txt", "a") as file:
    print(workdir.name, file=file)
print("step 1/10")
if behaviour == "fail":
    sys.exit("error: learning_rate is -1\\n  it must be positive")
(workdir / "train.jsonl").write_text(json.dumps({"step": 10, "time": 0, "images_per_second": 20.0}) + "\\n")
record = {"config_file": "configs/tiny.py", "config": config, "device": "cpu", "device_count": 1}
(workdir / "run.json").write_text(json.dumps(record | {"packages": {"jax": "0.10.0"}}))
if behaviour == "wait":
    time.sleep(60)
if behaviour != "forget to judge":
    row = {"metric": "fd_pixels_20", "value": 0.5, "nfe": 1, "step": config["steps"], "seed": 0, "n": 20}
    row["sampler"] = "consistency 80"
    (workdir / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
"""


def train(runs, place, *, jobs=1, behaviour=None, show=lambda look: None):
    """Pretends to train what is missing; the names in the order in which they were started, and what failed."""

    def calls(run, place):
        making = "import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)"
        made = [[sys.executable, "-c", making, str(place.runs / name)] for name in run.makes]
        if results_runs.finished(run, place):
            return made
        config = json.dumps({**VALUES, **{k: str(place.runs / v) for k, v in run.teachers.items()}, **run.values})
        pretend = [str(place.workdir(run)), config, (behaviour or {}).get(run.name, "")]
        return [[sys.executable, "-c", PRETEND, *pretend], *made]

    failed = results_training.train_missing(runs, place, jobs=jobs, show=show, calls=calls)
    order = place.runs / "order.txt"
    started = order.read_text().split() if order.exists() else []
    order.unlink(missing_ok=True)
    return started, failed


def done_with(
    fd: dict[int, float],
    *,
    sampler: str = "consistency",
    agreement: float = 0.9,
    seconds: float = 100.0,
    sha: str = "abc",
    **config,
):
    facts = {"seed": 0, "average": "power_0.05", "n": 20, "sampler": sampler}
    rows = []
    for nfe, value in fd.items():
        reference = {"reference": "digits/all", "reference_n": 1797, "reference_sha256": sha, "feature": "pixels"}
        rows.append({"metric": "fd_pixels_20", "value": value, "nfe": nfe, "real_floor": 0.3, **facts, **reference})
        label = {"metric": "label_agreement_20", "value": agreement, "held_out_accuracy": 0.98}
        rows.append({**label, "nfe": nfe, **facts})
    return Finished(rows, "configs/tiny.py", {**VALUES, **config}, seconds, 1, "cpu", "0.10.0")


def table_of(*runs: Run) -> Table:
    return Table("Tiny", "tiny", "Tiny runs.", ("steps", "batch_size"), runs)


def cells_of(page: str, label: str) -> list[list[str]]:
    """The cells of the lines of that label, one list for each table."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
