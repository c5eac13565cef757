"""The runs of a table of results: how each is called, and what has come of it.

A run counts as done when main.py has ended well and the folder holds final rows of this very config.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from eval import Row, load_module, read_rows
from train import read_log

from .results_rows import Run

ROOT = Path(__file__).parents[1]
RUNS = Path("runs/results")
RECORD = "driver.json"  # in the folder of a run, beside what main.py writes


class Place(NamedTuple):
    """Where runs lie, and where their data do.

    Attributes:
        runs: a folder with a folder for each run.
        data_dir: TensorFlow data sets; the configs' own if None.
    """

    runs: Path
    data_dir: str | None = None

    def workdir(self, run: Run) -> Path:
        """The folder of a run."""
        return self.runs / run.name

    def log(self, run: Run) -> Path:
        """What main.py printed when it was last started."""
        return self.runs / f"{run.name}.log"


class Finished(NamedTuple):
    """A run that is done.

    Attributes:
        rows: what the end of training was judged to be.
        config_file: as main.py was given it.
        config: its values.
        train_seconds: seconds of training with compilation, without judging and without drawing.
        cores: CPU cores it was given; None if it was not trained by this driver or not on a CPU.
        device: "cpu" or the accelerators, as "8 x TPU v5 lite".
        jax: version.
    """

    rows: list[Row]
    config_file: str
    config: dict[str, Any]
    train_seconds: float
    cores: int | None
    device: str
    jax: str


# ---- What a run is ---------------------------------------------------------------------------------------------------


def arguments(run: Run, place: Place) -> list[str]:
    """main.py and its arguments, as a shell would be given them."""
    located = {name: place.runs / other for name, other in run.teachers.items()}
    if place.data_dir is not None and "data_dir" in plain_config(run.config):
        located["data_dir"] = Path(place.data_dir)
    values = {**located, **run.values}
    return [
        *("main.py", "--config", f"configs/{run.config}.py", "--workdir", str(place.workdir(run))),
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def making(run: Run, place: Place) -> list[list[str]]:
    """The same for the folders that a run makes; given again, they go on or find them whole."""
    workdir = str(place.workdir(run))
    return [["main.py", "--workdir", workdir, *how, f"--out={place.runs / name}"] for name, how in run.makes.items()]


def commands(run: Run, place: Place) -> list[list[str]]:
    """The calls of main.py that are left of a run."""
    return [*([] if finished(run, place) else [arguments(run, place)]), *making(run, place)]


@cache
def plain_config(config: str) -> Mapping[str, Any]:
    """The values of a config file, as run.json holds them.

    Raises:
        FileNotFoundError: no such file.
    """
    values = load_module(ROOT / "configs" / f"{config}.py").get_config()
    return json.loads(json.dumps(values.to_dict()))


def check(runs: Sequence[Run]) -> None:
    """Refuse rows that cannot be run, before anything is.

    Raises:
        ValueError: listing names given twice, teachers and config files and config values that do not exist.
    """
    problems: list[str] = []
    above: set[str] = set()
    for run in runs:
        problems += [f"{name}: the name of two runs" for name in run.names() if name in above]
        # Only what stands above can be a teacher: that alone rules out circles.
        problems += [f"{run.name}: no run {t!r} stands above it" for t in run.teachers.values() if t not in above]
        above.update(run.names())
        try:
            known = plain_config(run.config)
        except FileNotFoundError as error:
            problems.append(f"{run.name}: {error}")
        else:
            unknown = sorted({*run.values, *run.teachers} - known.keys())
            problems += [f"{run.name}: configs/{run.config}.py has no value {value!r}" for value in unknown]
    if problems:
        raise ValueError("these rows cannot be run:\n  " + "\n  ".join(problems))


def with_teachers(chosen: Iterable[Run], runs: Sequence[Run]) -> list[Run]:
    """These runs and all whose workdirs they need, in the order of `runs`."""
    by_name = {name: run for run in runs for name in run.names()}
    needed: set[str] = set()
    waiting = [run.name for run in chosen]
    while waiting:
        run = by_name.get(waiting.pop())
        if run is not None and run.name not in needed:
            needed.add(run.name)
            waiting += run.teachers.values()
    return [run for run in runs if run.name in needed]


# ---- What is done ----------------------------------------------------------------------------------------------------


def finished(run: Run, place: Place) -> Finished | None:
    """What a run has come to; None if it is not done, or its folder holds a run of another config."""
    workdir = place.workdir(run)
    try:
        record = json.loads((workdir / RECORD).read_text())
        own = json.loads((workdir / "run.json").read_text())
        rows = final_rows(run, place)
    except FileNotFoundError:
        return None
    if not rows:
        return None
    batch_size = own["config"]["batch_size"]
    log = [row for row in read_log(workdir) if "images_per_second" in row]
    steps = [0, *(row["step"] for row in log)]
    # Steps that were taken again after a kill count once.
    taken = [max(row["step"] - k, 0) for k, row in zip(steps, log, strict=False)]
    seconds = sum(n * batch_size / row["images_per_second"] for n, row in zip(taken, log, strict=True))
    on_cpu = own["device"] == "cpu"
    return Finished(
        rows=rows,
        config_file=own["config_file"],
        config=own["config"],
        train_seconds=seconds,
        cores=record["cores"] if on_cpu else None,
        device="cpu" if on_cpu else f"{own['device_count']} x {own['device']}",
        jax=own["packages"]["jax"],
    )


def final_rows(run: Run, place: Place) -> list[Row]:
    """Rows that the end of the training of this very config wrote; none if it has not.

    Of repeated measurements the first count: later ones may be of another weight average.

    Raises:
        FileNotFoundError: the config file, or the folder or one of its files is missing.
    """
    workdir = place.workdir(run)
    own = json.loads((workdir / "run.json").read_text())
    if not is_of(run, own["config_file"], own["config"]):
        return []
    expected = {"step": own["config"]["steps"], "seed": 0, "n": own["config"]["judged_samples"]}
    rows = read_rows(workdir / "metrics.jsonl")
    rows = [row for row in rows if all(row.get(key) == value for key, value in expected.items())]
    return list({(row["metric"], row["sampler"]): row for row in reversed(rows)}.values())


def is_of(run: Run, config_file: str, config: Mapping[str, Any]) -> bool:
    """Whether these are the run's values; where a teacher or the data lie is not what a run is."""
    wanted = {**plain_config(run.config), **json.loads(json.dumps(dict(run.values)))}
    same = all(config.get(k) == v for k, v in wanted.items() if k not in elsewhere(run, config))
    return config_file == f"configs/{run.config}.py" and config.keys() == wanted.keys() and same


def elsewhere(run: Run, config: Mapping[str, Any]) -> set[str]:
    """The values that say where a run's teachers and its data lie."""
    return {*run.teachers, "data_dir"} & config.keys()


def without_places(run: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run, those that say where something lies as its config file has them."""
    return {**config, **{name: plain_config(run.config)[name] for name in elsewhere(run, config)}}
