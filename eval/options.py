"""What the command lines share: which features, which real images, which of a run's samples."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .features import Features, pixels
from .images import Images, image_batches
from .real import Measured, Reference, measure_stream
from .rebuild import load_glue
from .reference_files import reference_of
from .scores import Score
from .sets import Compare, compare_sets, compare_sets_and_coverage

BATCH = 250
MEASURES: dict[str, Compare] = {"standard": compare_sets, "coverage": compare_sets_and_coverage}


class Asked(NamedTuple):
    """What samples are measured by."""

    features: tuple[Features, ...]
    scores: tuple[Score, ...]


class RealImages(NamedTuple):
    """Real images by batches, and what they are called."""

    name: str
    batches: Iterator[Images]


def add_feature_options(parser: argparse.ArgumentParser) -> None:
    """Add --features, --weights, --resize, --measures, --keep and --batch-size."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "--features",
        nargs="+",
        default=["pixels"],
        help="pixels, lpips_vgg, dinov2, inception, inception_spatial, inception_logits; of one network"
        " (default: pixels)",
    )
    group.add_argument(
        "--weights",
        type=Path,
        help="file or folder of the network's weights, or the name of a published one (default: fetched once and kept)",
    )
    group.add_argument("--resize", help="how images come to the network's size (default: the network's first)")
    group.add_argument(
        "--measures", choices=sorted(MEASURES), default="standard", help="coverage: density and coverage too"
    )
    group.add_argument(
        "--keep",
        type=counting(0),
        default=10_000,
        help="real images for KID, precision and recall (default: %(default)s)",
    )
    group.add_argument("--batch-size", type=counting(1), default=BATCH, help="images in a call (default: %(default)s)")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add --split, --size and --data-dir, for data sets by name."""
    group = parser.add_argument_group("a data set by its name")
    group.add_argument("--split", default="train", help="(default: %(default)s)")
    group.add_argument(
        "--size", type=counting(1), help="centre crop and resize the real images to this, RGB, of folders too"
    )
    group.add_argument("--data-dir", help="where TensorFlow Datasets are prepared (default: its own)")


def counting(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return number


def asked(options: argparse.Namespace) -> Asked:
    """The features and scores of a command line.

    Raises:
        ValueError: there are no such features, or pixels are asked for with the weights or the resize of a network.
        FileNotFoundError: the weights of their network are not there.
    """
    if options.features == [pixels.name]:
        for name in ("weights", "resize"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} {getattr(options, name)} is of a network; pixels are compared as they are")
        return Asked((pixels,), ())
    found = glue().features(
        options.features, weights=options.weights, resize=options.resize, batch_size=options.batch_size
    )
    return Asked(*found)


def real_images(source: str, options: argparse.Namespace) -> RealImages:
    """Images of a folder, an npz file, or a data set by its name.

    Raises:
        FileNotFoundError: none of these; or a data set that is not prepared.
    """
    path = Path(source)
    if path.exists() and options.size is None:
        return RealImages(source, image_batches(path, options.batch_size))
    name, batches = glue().images(
        source, split=options.split, size=options.size, data_dir=options.data_dir, batch_size=options.batch_size
    )
    return RealImages(name, batches)


def reference(source: str, features: Features, options: argparse.Namespace, *, dim: int | None = None) -> Reference:
    """What one extractor makes of real images, or of a file of moments.

    Raises:
        FileNotFoundError: there are no such images, file or data set.
        ValueError: the file cannot be read, or is of other features.
    """
    return reference_of(
        source,
        features,
        measured=lambda: measure(source, features, options, keep=options.keep).reference,
        numbers=glue().numbers,
        dim=dim,
        compare=MEASURES[options.measures],
    )


def measure(source: str, features: Features, options: argparse.Namespace, *, keep: int) -> Measured:
    """Measure real images, keeping the features of `keep` that are drawn of them."""
    name, batches = real_images(source, options)
    return measure_stream(name, features, batches, keep=keep, compare=MEASURES[options.measures])


def glue() -> ModuleType:
    """configs/judging.py, which joins evaluation to networks and data."""
    return load_glue("judging")
