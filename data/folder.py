"""A folder of image files, with or without one sub-folder for each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .pixels import pixels
from .source import Example


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files, decoded when they are read; made by `folder`.

    Attributes:
        name: identity of the data.
        shape: (height, width, channels) every image has, or is brought to by `size`.
        files: one file for each example, sorted.
        labels: the class of each file, or None.
        class_names: names of the class sub-folders, sorted; a label is an index into them.
        size: centre crop and resize to this, or None to take the files as they are.
    """

    name: str
    shape: tuple[int, int, int]
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...]
    size: int | None

    @property
    def num_classes(self) -> int:
        """Number of class sub-folders, 0 when there are none."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        try:
            image = _read(self.files[index], self.shape[2], self.size)
        except ValueError as error:
            raise ValueError(f"example {index} of {self.name}: {error}") from error
        if image.shape != self.shape:
            raise ValueError(
                f"example {index}, {self.files[index]}, gives an image of shape {image.shape}, but {self.files[0]}"
                f" gives {self.shape}; pass size= to centre-crop and resize all of them"
            )
        if self.labels is None:
            return Example(image=image)
        return Example(image=image, label=np.int32(self.labels[index]))


def folder(root: str | Path, *, size: int | None = None, channels: int = 3, name: str | None = None) -> FolderSource:
    """All images of a folder, in any format that Pillow reads.

    Images that lie in `root` itself have no label.  If `root` holds sub-folders instead, each is a class:
    labels number the sub-folders in sorted order, and images are looked for at any depth below them.
    Hidden files and files without the suffix of an image format are passed over.

    Args:
        root: the folder.
        size: centre-crop to a square and resize to size x size; None demands files of one size.
        channels: 3 for RGB, 1 for grey; `pixels` documents how other formats are converted.
        name: identity of the data, part of the data fingerprint; the name of the folder if not given.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, images beside class folders, an empty class, `size` or `channels` not allowed.
            When an example is read: a file that cannot be decoded or has another size, with its path.
    """
    root = Path(root).expanduser()
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}, it must be 1 (grey) or 3 (RGB)")
    if size is not None and size < 1:
        raise ValueError(f"size is {size}, it must be at least 1")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of images at {root.absolute()}")
    loose = _images(root.iterdir())
    class_folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {path: _images(path.rglob("*")) for path in class_folders}
    classes = {path: files for path, files in found.items() if files}
    if loose and classes:
        raise ValueError(
            f"{root} holds images ({loose[0].name}, ...) beside class folders ({next(iter(classes)).name}, ...);"
            f" it must hold one or the other"
        )
    if not loose and not classes:
        raise ValueError(
            f"{root} holds no images: expected files such as 0001.png, or class folders such as cat/0001.png"
        )
    if len(classes) < len(found) and not loose:
        empty = next(path for path in class_folders if path not in classes)
        raise ValueError(f"the class folder {empty} holds no images; fill or remove it")
    files = loose or [file for group in classes.values() for file in group]
    labels = tuple(label for label, group in enumerate(classes.values()) for _ in group)
    height, width = (size, size) if size is not None else _read(files[0], channels, None).shape[:2]
    return FolderSource(
        name=name or root.resolve().name,
        shape=(height, width, channels),
        files=tuple(files),
        labels=labels or None,
        class_names=tuple(path.name for path in classes),
        size=size,
    )


def _images(paths: Iterable[Path]) -> list[Path]:
    suffixes = Image.registered_extensions()
    return sorted(
        path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _read(file: Path, channels: int, size: int | None) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return pixels(image, channels=channels, size=size)
    except Exception as error:  # Pillow's decoders raise nearly every kind of error on broken files
        raise ValueError(f"cannot read the image {file}: {error}") from error
