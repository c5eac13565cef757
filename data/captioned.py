"""Latents of captioned images: three arrays in a folder, read from disk when they are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from .source import Batch, Example

FILES = {
    "latents.npy": "[n, height, width, channels], already multiplied by the autoencoder's factor",
    "text.npy": "[n, length, features], the last states of the text encoder, one caption for each latent",
    "empty.npy": "[length, features], those of the empty caption",
}
CAPTIONED_FILES = "a folder with " + ", ".join(f"{name} {what}" for name, what in FILES.items())
_PROBES = 16
# Multiplied by their autoencoder's factor, latents have a deviation of about 1; as encoded Stable Diffusion's have 5.
_HIGHEST_DEVIATION = 3.0


class CaptionedExample(Example):
    """An example whose `image` is a latent, float32, beside the states of its caption."""

    text: Float32[np.ndarray, "length features"]


class CaptionedBatch(Batch):
    """The same stacked along a leading axis."""

    text: Float32[np.ndarray, "batch length features"]


@dataclass(frozen=True, eq=False)
class CaptionedSource:
    """Latents and the states of their captions, mapped into memory; made by `captioned_latents`.

    Attributes:
        name: of the folder, and a hash of what its texts and latents are.
        image: float16 or float32 [n, height, width, channels].
        text: float16 or float32 [n, length, features].
        empty: float32 [length, features], the states of the empty caption.
        num_classes: 0; there are no labels.
    """

    name: str
    image: np.ndarray
    text: np.ndarray
    empty: np.ndarray
    num_classes: int = 0

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> CaptionedExample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has no example {index}, only 0 .. {len(self) - 1}")
        return CaptionedExample(
            image=np.asarray(self.image[index], np.float32), text=np.asarray(self.text[index], np.float32)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every latent."""
        _, height, width, channels = self.image.shape
        return height, width, channels

    def take(self, indices: Int[np.ndarray, "batch"]) -> CaptionedBatch:
        """The examples at `indices` as one batch, with their texts."""
        return CaptionedBatch(
            image=np.asarray(self.image[indices], np.float32), text=np.asarray(self.text[indices], np.float32)
        )


def captioned_latents(folder: str | Path) -> CaptionedSource:
    """Latents and the states of their captions from `latents.npy`, `text.npy` and `empty.npy` of a folder.

    All three are float16 or float32 and become float32 when they are read. A latent is one fixed draw: what varies from
    epoch to epoch, such as crops, is not seen here.

    Raises:
        FileNotFoundError: no such folder, or a file is missing; says which and what they should hold.
        TypeError: numbers of another type.
        ValueError: a file that is no array, axes or lengths that do not fit, numbers that are not finite, or latents
            that were not multiplied by the autoencoder's factor; all with what was found.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder.absolute()}; it should be {CAPTIONED_FILES}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; it should be {CAPTIONED_FILES}")
    image, text, empty = (_map(folder / name, axes) for name, axes in zip(FILES, (4, 3, 2), strict=True))
    if len(image) != len(text) or not len(image):
        raise ValueError(
            f"{folder} has {len(image):,} latents and {len(text):,} texts; it needs one for each, and some"
        )
    if text.shape[1:] != empty.shape:
        raise ValueError(
            f"{folder}: texts have shape {text.shape[1:]} and the empty one {empty.shape}; they must be of one encoder"
        )
    _, height, width, channels = image.shape
    if height < min(width, channels):
        raise ValueError(
            f"{folder}: latents of shape {image.shape[1:]} look like channels first,"
            " use np.transpose(latents, (0, 2, 3, 1))"
        )
    digest = hashlib.sha256(empty.tobytes())
    probes = [(image[i].astype(np.float32), text[i]) for i in np.linspace(0, len(image) - 1, _PROBES).astype(int)]
    for i, (latent, states) in enumerate(probes):
        if not (np.isfinite(latent).all() and np.isfinite(states).all()):
            raise ValueError(f"{folder}: number {i} of {_PROBES} examples spread over the data is not finite")
        digest.update(states.tobytes())
    deviation = np.std([latent for latent, _ in probes])
    if deviation > _HIGHEST_DEVIATION:
        raise ValueError(
            f"{folder}: latents have a standard deviation of {deviation:.3g}, a model expects about 1;"
            " were they multiplied by the autoencoder's factor, 0.18215 in Stable Diffusion?"
        )
    name = f"{folder.name} with captions {digest.hexdigest()[:12]}"
    return CaptionedSource(name, image, text, np.asarray(empty, np.float32))


def _map(path: Path, axes: int) -> np.ndarray:
    """An array on disk, checked."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"cannot read {path} as .npy: {error}") from error
    if array.dtype not in (np.float16, np.float32):
        raise TypeError(f"{path} holds {array.dtype}, expected float16 or float32")
    if array.ndim != axes:
        raise ValueError(f"{path} has shape {array.shape}, expected {FILES[path.name]}")
    if axes == 2 and not np.isfinite(array).all():
        raise ValueError(f"{path} holds numbers that are not finite")
    return array
