"""Images and labels from one `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from .memory import ArraySource

_IMAGE_KEYS = ("image", "images", "x", "arr_0")
_LABEL_KEYS = ("label", "labels", "y", "arr_1")


def npz(path: str | Path, *, num_classes: int | None = None, name: str | None = None) -> ArraySource:
    """Reads `.npz` data: uint8 images [n, height, width, channels] and, if there are any, labels [n].

    Args:
        path: the file; images under image, images, x or arr_0, labels under label, labels, y or arr_1.
        num_classes: number of classes; the largest label plus one if not given.
        name: identity of the data, part of the data fingerprint; the name of the file if not given.

    Raises:
        FileNotFoundError: no such file.
        TypeError: images that are not uint8 (with their range), labels that are not whole numbers.
        ValueError: not a `.npz` file, pickled objects, no images under one of these names (those found are
            listed), wrong axes, labels out of range.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path.absolute()}")
    image, label = _read(path)
    if label is not None:
        if not np.issubdtype(label.dtype, np.integer):
            raise TypeError(f"{path}: got {label.dtype} labels, expected whole numbers (an integer dtype)")
        if num_classes is None:
            num_classes = int(label.max(initial=-1)) + 1
        # Larger labels would wrap around in int32; as the largest int32 they stay out of range.
        label = np.clip(label, -1, np.iinfo(np.int32).max).astype(np.int32)
    try:
        return ArraySource(name or path.stem, image, label, num_classes or 0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with path.open("rb") as file:  # opened here because np.load leaves broken files open
            if file.read(2) != b"PK" and file.seek(0) == 0 and file.read(6) != b"\x93NUMPY":
                raise ValueError("it is no archive of arrays")  # NumPy would advise to load it as a pickle
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array (.npy)")
            names = list(archive)
            found = [next((key for key in keys if key in names), None) for keys in (_IMAGE_KEYS, _LABEL_KEYS)]
            image, label = (None if key is None else archive[key] for key in found)
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {path} as .npz without pickled objects: {error}") from error
    if image is None:
        raise ValueError(f"{path} has no images under {', '.join(_IMAGE_KEYS)}; found: {', '.join(names) or 'nothing'}")
    return image, label
