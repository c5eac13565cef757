"""Command line: judge a run, or a set of samples against a set of real images.

python -m eval.fid --workdir runs/digits --n 2000
python -m eval.fid samples.npz reference.npz --features pixels
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from .features import Features, pixels
from .images import read_images
from .judge import judge
from .npz import read_npz
from .rebuild import load_experiment
from .reference import Reference, make_reference, read_reference
from .report import print_report
from .rows import Row, append_rows
from .run import evaluate

FEATURES = {features.name: features for features in (pixels,)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        if options.out is not None and options.out.exists():
            raise FileExistsError(f"{options.out} exists; choose another name for the rows")
        if options.workdir is not None and not options.paths:
            rows = _judge_run(options)
        elif options.workdir is None and len(options.paths) == 2:
            samples, reference = options.paths
            rows = _judge_paths(samples, reference, FEATURES[options.features], options.allow_few)
        else:
            raise ValueError("give either --workdir, or two paths: samples and reference")
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    print_report(rows)
    if options.out is not None:
        append_rows(options.out, rows)
    return 0


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
    )


def _judge_paths(samples: Path, reference: Path, features: Features, allow_few: bool) -> list[Row]:
    images = read_images(samples)
    judged = judge([(images, None)], references=[_reference(reference, features, images)], allow_few=allow_few)
    return [{"metric": row["metric"], "value": row["value"], "samples": str(samples), **row} for row in judged]


def _reference(path: Path, features: Features, images: np.ndarray) -> Reference:
    if path.is_file() and "arr_0" not in read_npz(path):
        return read_reference(path, features, dim=features.extract(images[:1]).shape[1])
    return make_reference(str(path), features, read_images(path))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.fid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="samples and reference: folders or npz files")
    parser.add_argument("--out", type=Path, help="also write the rows to this new file, one JSON object a line")
    run = parser.add_argument_group("a run")
    run.add_argument("--workdir", type=Path, help="folder of a run; its rows also go to its metrics.jsonl")
    run.add_argument("--n", type=int, help="samples of each sampler (default: judged_samples of the run)")
    run.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    run.add_argument("--average", help="weight average, or params (default: judged_average of the run)")
    run.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    run.add_argument("--nfe", type=int, nargs="+", help="only samplers with this many network evaluations")
    run.add_argument("--batch-size", type=int, default=250, help="images in a call (default: %(default)s)")
    paths = parser.add_argument_group("two paths")
    paths.add_argument(
        "--features", choices=sorted(FEATURES), default="pixels", help="extractor (default: %(default)s)"
    )
    paths.add_argument("--allow-few", action="store_true", help="measure even fewer samples than dimensions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
