"""Command line: bits per dimension of held-out images under the ODE of a trained run.

python -m eval.likelihood --workdir runs/digits_edm --data digits --split held_out
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .fid import report
from .options import add_data_options
from .rebuild import load_glue
from .rows import Row, count_name
from .run import keep_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    return report(_parser(), measure, arguments)


def measure(options: argparse.Namespace) -> list[Row]:
    """The row of a run's likelihood, appended to its metrics.jsonl.

    Raises:
        ValueError: images of another shape, without the labels that the model needs, or fewer than two.
    """
    likelihood = load_glue("likelihoods").likelihood(
        options.workdir,
        average=options.average,
        step=options.step,
        solver_steps=options.solver_steps,
        estimated=not options.exact,
        seed=options.seed,
    )
    name, batches = load_glue("judging").examples(
        options.data, split=options.split, size=options.size, data_dir=options.data_dir, batch_size=options.batch_size
    )
    bits: list[np.ndarray] = []
    seen = 0
    for all_images, all_labels in batches:
        room = None if options.n is None else options.n - seen
        images, labels = all_images[:room], None if all_labels is None else all_labels[:room]
        if len(images) == 0:
            break
        _check(name, images, labels, likelihood)
        bits.append(likelihood.bits(images, labels, np.arange(seen, seen + len(images), dtype=np.int32)))
        seen += len(images)
    values = np.concatenate(bits).astype(np.float64) if bits else np.zeros(0)
    if len(values) < 2:
        raise ValueError(f"a mean with its error needs at least two images, got {len(values)} of {name}")
    row: Row = {
        "metric": f"bits_per_dimension_{count_name(len(values))}",
        "value": float(values.mean()),
        "standard_error": float(values.std(ddof=1) / np.sqrt(len(values))),
        "n": len(values),
        "data": name,
        **likelihood.facts,
    }
    keep_rows(Path(options.workdir), [row])
    return [row]


def _check(name: str, images: np.ndarray, labels: np.ndarray | None, likelihood: Any) -> None:
    if images.shape[1:] != likelihood.shape:
        raise ValueError(f"{name} has images of {images.shape[1:]}, the run makes {likelihood.shape}")
    if likelihood.num_classes and labels is None:
        raise ValueError(f"the run is of {likelihood.num_classes} classes, and {name} has no labels")
    if likelihood.num_classes and labels is not None and labels.max() >= likelihood.num_classes:
        raise ValueError(f"{name} has label {labels.max()}, the run {likelihood.num_classes} classes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.likelihood", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=Path, required=True, help="folder of a run; the row goes to its metrics.jsonl"
    )
    parser.add_argument("--data", required=True, help="held-out images: a folder, or a data set by its name")
    parser.add_argument("--n", type=int, help="the first so many images (default: all)")
    parser.add_argument("--average", help="weight average, or params (default: that which the run's config names)")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    parser.add_argument("--solver-steps", type=int, default=64, help="Heun steps (default: %(default)s)")
    parser.add_argument("--exact", action="store_true", help="a derivative for each pixel: for small images")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the signs (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=250, help="images in a call (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the row to this new file")
    add_data_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
