"""Command line: measure real images once, and keep their moments with the recipe that they were made by.

python -m eval.reference FOLDER --out reference.npz --features inception --resize tf1 --name imagenet64/train --size 64
python -m eval.reference cifar10 --split train --out cifar10_train.npz --features inception
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .options import add_data_options, add_feature_options, asked, measure
from .reference_files import write_reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        written = build(options)
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    Console().print(written, highlight=False, soft_wrap=True)
    return 0


def build(options: argparse.Namespace) -> str:
    """Measure, write, and say what was written.

    Raises:
        FileExistsError: the file exists.
        ValueError: features without moments, or more than one.
    """
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists; choose another name, or give --overwrite")
    found = asked(options)
    if len(found.features) != 1 or found.scores:
        raise ValueError(f"a file holds the moments of one feature, got {' '.join(options.features)}")
    measured = measure(options.source, found.features[0], options, keep=0)
    reference = measured.reference._replace(name=options.name or measured.reference.name)
    recipe = options.preprocessing or (
        "as they are" if options.size is None else f"centre crop and resize to {options.size} by data.folder"
    )
    write_reference(
        options.out,
        reference,
        preprocessing=recipe,
        images_sha256=measured.images_sha256,
        overwrite=options.overwrite,
    )
    features = reference.features
    return (
        f"{options.out}: {reference.name}, {reference.n:,} images, {features.name}, resize {features.resize}, "
        f"sha256 {reference.sha256[:12]}, images {measured.images_sha256[:12]}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="a folder, an npz file with arr_0, or a data set by its name")
    parser.add_argument("--out", type=Path, required=True, help="npz file to write")
    parser.add_argument("--name", help="data set and split, as imagenet64/train (default: the source's)")
    parser.add_argument("--preprocessing", help="what was done to the images before, in words")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_feature_options(parser)
    add_data_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
