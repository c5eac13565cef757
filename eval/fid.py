"""Command line: judge a run, or a set of samples, against its own reference or another.

python -m eval.fid --workdir runs/digits --n 2000
python -m eval.fid --workdir runs/x --reference cifar10 --features inception inception_logits --resize tf1
python -m eval.fid samples.npz reference.npz --features inception --weights FILE
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from .devices import cores_as_devices
from .images import image_batches
from .judge import Batches, judge
from .names import ALONE
from .npz import read_npz
from .options import add_data_options, add_feature_options, asked, reference
from .rebuild import load_experiment
from .report import print_report
from .rows import Row, append_rows
from .run import Judge, evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    return report(_parser(), _judged, arguments)


def report(
    parser: argparse.ArgumentParser,
    measured: Callable[[argparse.Namespace], list[Row]],
    arguments: Sequence[str] | None,
) -> int:
    """Parse, measure, print the table and write the rows to --out; an error of the input is one red line."""
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        if options.out is not None and options.out.exists():
            raise FileExistsError(f"{options.out} exists; choose another name for the rows")
        rows = measured(options)
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    print_report(rows)
    if options.out is not None:
        append_rows(options.out, rows)
    return 0


def _judged(options: argparse.Namespace) -> list[Row]:
    if options.workdir is not None and not options.paths:
        return _judge_run(options)
    enough = 1 if set(options.features) <= set(ALONE) else 2
    if options.workdir is None and enough <= len(options.paths) <= 2:
        for name in ("n", "average", "step", "nfe", "reference"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is of a run, given by --workdir; of paths all samples are judged")
        return _judge_paths(options)
    raise ValueError("give either --workdir, or two paths: samples and reference")


def _judge_run(options: argparse.Namespace) -> list[Row]:
    experiment = load_experiment(options.workdir)
    samplers = [sampler for sampler in experiment.samplers if options.nfe is None]
    for nfe in options.nfe or []:
        found = [sampler for sampler in experiment.samplers if sampler.nfe == nfe]
        if not found:
            there = sorted({sampler.nfe for sampler in experiment.samplers})
            raise ValueError(f"no sampler takes {nfe} network evaluations; there are {there}")
        samplers += found
    return evaluate(
        experiment,
        options.workdir,
        n=experiment.judged_samples if options.n is None else options.n,
        seed=options.seed,
        average=options.average or experiment.judged_average,
        batch_size=options.batch_size,
        samplers=samplers,
        step=options.step,
        judge=chosen_judge(options),
    )


def chosen_judge(options: argparse.Namespace) -> Judge | None:
    """The judge that --reference and --features ask for; None for the run's own.

    Raises:
        ValueError: features or measures without a reference, but for those that need none.
    """
    alone = set(options.features) <= set(ALONE)
    if options.reference is None and not alone:
        if options.features != ["pixels"]:
            raise ValueError("--features of a run need --reference: real images, a file of moments, or a data set")
        if options.measures != "standard":
            raise ValueError(f"--measures {options.measures} needs --reference; the run has measures of its own")
        return None
    found = asked(options)
    references = [reference(options.reference, features, options) for features in found.features]
    return partial(judge, references=references, scores=found.scores, allow_few=options.allow_few)


def _judge_paths(options: argparse.Namespace) -> list[Row]:
    samples, real = options.paths[0], options.paths[-1]
    found = asked(options)
    batches = image_batches(samples, options.batch_size)
    first = next(batches)
    references = [
        reference(real, features, options, dim=features.extract(first[:1]).shape[1]) for features in found.features
    ]
    judged = judge(
        _labelled(samples, first, batches),
        references=references,
        scores=found.scores,
        allow_few=options.allow_few,
    )
    return [{"metric": row["metric"], "value": row["value"], "samples": str(samples), **row} for row in judged]


def _labelled(samples: str, first: np.ndarray, rest: Iterator[np.ndarray]) -> Batches:
    """Batches with the labels that the samples' file holds beside them, if it does."""
    labels = read_npz(samples, "arr_1").get("arr_1") if Path(samples).is_file() else None
    start = 0
    for images in (first, *rest):
        yield images, None if labels is None else labels[start : start + len(images)]
        start += len(images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.fid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="*", help="samples: a folder or npz file; reference: the same, a file of moments, or a data set"
    )
    parser.add_argument("--out", type=Path, help="also write the rows to this new file, one JSON object a line")
    add_run_options(parser)
    add_feature_options(parser)
    parser.add_argument("--allow-few", action="store_true", help="measure even fewer samples than dimensions")
    add_data_options(parser)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which samples of a run are judged, and against what."""
    run = parser.add_argument_group("a run")
    run.add_argument("--workdir", type=Path, help="folder of a run; its rows also go to its metrics.jsonl")
    run.add_argument("--n", type=int, help="samples of each sampler (default: judged_samples of the run)")
    run.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    run.add_argument("--average", help="weight average, or params (default: judged_average of the run)")
    run.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    run.add_argument("--nfe", type=int, nargs="+", help="only samplers with this many network evaluations")
    run.add_argument("--reference", help="judge by --features against this instead of the run's own judge")


if __name__ == "__main__":
    cores_as_devices()
    sys.exit(main())
