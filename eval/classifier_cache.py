"""Trained judges, kept between runs: the classifier of a data set is trained once on a machine."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Integer, UInt8

from . import classifier as module
from .classifier import Classifier, load_classifier, save_classifier, train_classifier


def cache_folder() -> Path:
    """Where judges are kept: fewstep/classifiers in $XDG_CACHE_HOME, or in ~/.cache; it can be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fewstep" / "classifiers"


def kept_classifier(
    image: UInt8[np.ndarray, "n height width channels"],
    label: Integer[np.ndarray, " n"],
    held_out_image: UInt8[np.ndarray, "m height width channels"],
    held_out_label: Integer[np.ndarray, " m"],
    *,
    num_classes: int,
    seed: int = 0,
    folder: Path | None = None,
) -> Classifier:
    """What `train_classifier` gives for these images, trained only if it was not before.

    It is found by a hash of the images, the labels, the code of the classifier and the version of jax, so it is the one
    that would be trained. Where the folder cannot be written, it is trained each time.

    Args:
        image: real training images.
        label: their classes.
        held_out_image: real images it is scored on.
        held_out_label: their classes.
        num_classes: number of classes.
        seed: of its training; another one is another classifier.
        folder: where it is kept; `cache_folder()` if None.

    Raises:
        ValueError: as `train_classifier`.
    """
    digest = hashlib.sha256(
        f"jax {jax.__version__}, {jax.default_backend()}, {num_classes} classes, seed {seed}".encode()
    )
    digest.update(Path(module.__file__).read_bytes())
    for array in (image, label, held_out_image, held_out_label):
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    kept = (folder or cache_folder()) / digest.hexdigest()[:16]
    try:
        return load_classifier(kept)
    except OSError:  # not there, or no place to look
        pass
    trained = train_classifier(image, label, held_out_image, held_out_label, num_classes=num_classes, seed=seed)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=kept.parent))
        save_classifier(unfinished, trained)
        try:
            unfinished.rename(kept)  # whole or not at all, whoever else trains it now
        except OSError:
            shutil.rmtree(unfinished)  # another was first
    except OSError:
        pass
    return trained
