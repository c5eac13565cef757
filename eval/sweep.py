"""Command line: a run sampled with other values of its config, and which of them none beats in everything.

python -m eval.sweep --workdir runs/x --knob "euler_steps=(1,),(4,),(32,)" --knob guidance=1,1.5,2 --n 2000

A knob is any value of the config that its samplers take: numbers of steps, times, a guidance scale, the run of a weaker
model to be guided by. All combinations are sampled. Rows go to sweep.jsonl of the run, the fronts to sweep.png.
"""

import argparse
import ast
import difflib
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .devices import cores_as_devices
from .fid import add_run_options, chosen_judge, report
from .options import add_data_options, add_feature_options
from .pareto import front, goodness, pareto_plot, points
from .rebuild import load_module, read_run
from .rows import Row, append_rows
from .run import Judge, judge_sampler

ROLES = ("consistency", "diversity", "realism")
USUAL: dict[str, tuple[str, ...]] = {
    "consistency": ("label_agreement",),
    "diversity": ("coverage", "recall"),
    "realism": ("density", "precision", "fd", "fid"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    return report(_parser(), _swept, arguments)


def sweep(
    workdir: str | Path,
    knobs: Mapping[str, Sequence[Any]],
    *,
    n: int | None = None,
    seed: int = 0,
    average: str | None = None,
    step: int | None = None,
    batch_size: int = 250,
    judge: Judge | None = None,
) -> list[Row]:
    """Judge samples of a run at all combinations of config values; rows say them under `samples` and `knobs`.

    Args:
        workdir: of the run.
        knobs: values by the name they have in the config.
        n: samples of each; judged_samples of the run if None.
        seed: of the samples.
        average: which weights; judged_average of the run if None.
        step: which checkpoint; the newest if None.
        batch_size: images in one call.
        judge: in place of the run's own.

    Raises:
        ValueError: the config has no such value, or it changes the network.
    """
    config_file, config = read_run(workdir)
    module = load_module(config_file)
    base = module.build(config)
    params, step = base.restore(Path(workdir), average or base.judged_average, step)
    settings = [dict(zip(knobs, values, strict=True)) for values in product(*knobs.values())]
    # All are built before the first is sampled: a value that is refused is told at once.
    variants = [(setting, module.build(_changed(config, setting))) for setting in settings]
    for setting, experiment in variants:
        if _shapes(experiment) != _shapes(base):
            raise ValueError(f"{_told(setting)} changes the network, which was trained otherwise; it is no knob")
    rows: list[Row] = []
    for setting, experiment in variants:
        for sampler in experiment.samplers:
            rows += [
                {"samples": _told(setting), **row}
                for row in judge_sampler(
                    sampler,
                    params,
                    base.judge if judge is None else judge,
                    facts={"step": step, "average": average or base.judged_average, "knobs": setting},
                    n=base.judged_samples if n is None else n,
                    seed=seed,
                    num_classes=base.num_classes,
                    batch_size=batch_size,
                )
            ]
    return rows


def fronts(rows: Sequence[Row], asked: Mapping[str, str | None]) -> tuple[list[str], list[Row]]:
    """The metrics of the three roles that the rows have, and the rows with `on_front`: whether no setting beats it.

    Args:
        rows: of a sweep.
        asked: metric by role, or how its name begins; the usual one if None.
    """
    there = list(dict.fromkeys(row["metric"] for row in rows))
    chosen = []
    for role in ROLES:
        wanted = asked.get(role)
        beginnings = USUAL[role] if wanted is None else (wanted,)
        found = [m for b in beginnings for m in there if m == b or m.startswith(f"{b}_")]
        if wanted is not None and not found:
            raise ValueError(f"no metric begins with {wanted}; there are {', '.join(there)}")
        chosen += found[:1]
    found_points = points(rows, chosen)
    best = front(goodness(np.array([point.values for point in found_points]), chosen))
    on_front = {point.label for point, is_best in zip(found_points, best, strict=True) if is_best}
    return chosen, [{**row, "on_front": f"{row['samples']}, {row['sampler']}".strip(", ") in on_front} for row in rows]


def _changed(config: Any, setting: Mapping[str, Any]) -> Any:
    changed = config.copy_and_resolve_references()
    for name, value in setting.items():
        if name not in changed:
            closest = "".join(f"; did you mean {match}?" for match in difflib.get_close_matches(name, list(changed), 1))
            raise ValueError(f"the config has no value {name!r}; it has {', '.join(sorted(changed))}{closest}")
        try:
            changed[name] = value
        except TypeError as error:
            raise ValueError(f"{name} cannot be {value!r}: {error}") from error
    return changed


def _shapes(experiment: Any) -> Any:
    return jax.eval_shape(experiment.init, jax.random.key(0)) if hasattr(experiment, "init") else None


def _told(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def _swept(options: argparse.Namespace) -> list[Row]:
    if options.workdir is None:
        raise ValueError("a sweep needs --workdir")
    knobs = dict(_knob(text) for text in options.knob)
    kept, picture = (Path(options.workdir) / name for name in ("sweep.jsonl", "sweep.png"))
    measured = sweep(
        options.workdir,
        knobs,
        n=options.n,
        seed=options.seed,
        average=options.average,
        step=options.step,
        batch_size=options.batch_size,
        judge=chosen_judge(options),
    )
    metrics, rows = fronts(measured, {role: getattr(options, role) for role in ROLES})
    append_rows(kept, rows)
    if len(metrics) > 1:
        pareto_plot(points(rows, metrics), metrics).savefig(picture)
    return rows


def _knob(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    try:
        found = ast.literal_eval(f"[{values}]")
    except (SyntaxError, ValueError):
        found = values.split(",")  # words
    if not (name and equals and found):
        raise ValueError(f"--knob {text}: expected NAME=VALUE,VALUE,...")
    return name, found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--knob", action="append", required=True, help="NAME=VALUE,VALUE,... of the config; repeatable")
    for role in ROLES:
        parser.add_argument(f"--{role}", help=f"metric (default: {' or '.join(USUAL[role])})")
    parser.add_argument("--out", type=Path, help="also write the rows to this new file, one JSON object a line")
    parser.add_argument("--allow-few", action="store_true", help="measure even fewer samples than dimensions")
    add_run_options(parser)
    add_feature_options(parser)
    add_data_options(parser)
    return parser


if __name__ == "__main__":
    cores_as_devices()
    sys.exit(main())
