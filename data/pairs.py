"""Pairs of data and the noise that a flow joins them with: shards of arrays, and a record of what made them.

A folder holds `record.json` and, for every shard, `images-NNNNN.npy`, `noise-NNNNN.npy` (float32, both [n, height,
width, channels]) and `labels-NNNNN.npy` if there are labels. Noise is stored and not a key to draw it from: it is read
faster than it is drawn, does not hang on a release of a random number generator, and inverted noise has no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped

from . import store

FORMAT_VERSION = 1
KEYS = ("name", "origin", "count", "shape", "num_classes", "dtype", "shard_size")


class PairBatch(TypedDict):
    """Images as they were stored, float32 in about [-1, 1] or uint8, and the noise of each."""

    image: Shaped[np.ndarray, "batch height width channels"]
    noise: Float32[np.ndarray, "batch height width channels"]
    label: NotRequired[Int32[np.ndarray, "batch"]]


@dataclass(frozen=True, eq=False)
class PairSource:
    """Pairs, read from disk when they are asked for; made by `pairs` and `joined`.

    Attributes:
        name: of the flow and of what was drawn with it.
        shape: (height, width, channels) of an image and of its noise.
        num_classes: number of classes, 0 without labels.
        records: everything that each `record.json` says.
        images, noise, labels: the arrays of each shard, mapped into memory.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    records: tuple[Mapping[str, Any], ...]
    images: tuple[np.ndarray, ...]
    noise: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.images)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has no example {index}, only 0 .. {len(self) - 1}")
        batch = self.take(np.asarray([index]))
        return {name: np.asarray(values)[0] for name, values in batch.items()}

    def take(self, indices: Int[np.ndarray, "batch"]) -> PairBatch:
        """The pairs at `indices` as one batch."""
        ends = np.cumsum([len(shard) for shard in self.images])
        shards = np.searchsorted(ends, indices, side="right")
        places = [
            (int(i), int(index - ends[i] + len(self.images[i]))) for i, index in zip(shards, indices, strict=True)
        ]
        batch = PairBatch(
            image=np.stack([self.images[i][row] for i, row in places]),
            noise=np.stack([self.noise[i][row] for i, row in places]),
        )
        if self.num_classes:
            batch["label"] = np.asarray([self.labels[i][row] for i, row in places], np.int32)
        return batch


def pairs(folder: str | Path, *, shape: tuple[int, ...] | None = None, num_classes: int | None = None) -> PairSource:
    """The pairs that `write_pairs` left in a folder; what is given besides is what they must be.

    Raises:
        FileNotFoundError: no such folder, no record, or a shard is missing.
        ValueError: pairs of another shape or of other classes, with both; an unfinished, foreign or damaged folder.
    """
    folder = Path(folder).expanduser()
    record = store.read_record(folder, what="pairs", keys=KEYS, format_version=FORMAT_VERSION)
    height, width, channels = record["shape"]
    for name, there, here in (
        ("shape", (height, width, channels), None if shape is None else tuple(shape)),
        ("classes", record["num_classes"], num_classes),
    ):
        if here is not None and there != here:
            raise ValueError(f"the pairs in {folder} are not those of this run: {name} {there} there, {here} here")
    rows = store.shard_rows(record["count"], record["shard_size"])
    files = [(shard_files(folder, number), n) for number, n in enumerate(rows)]

    def arrays(kind: str, dtype: str, *shape: int) -> tuple[np.ndarray, ...]:
        remedy = "make the pairs again"
        return tuple(store.map_array(getattr(f, kind), (n, *shape), dtype, remedy=remedy) for f, n in files)

    return PairSource(
        name=record["name"],
        shape=(height, width, channels),
        num_classes=record["num_classes"],
        records=(record,),
        images=arrays("images", record["dtype"], height, width, channels),
        noise=arrays("noise", "float32", height, width, channels),
        labels=arrays("labels", "int32") if record["num_classes"] else (),
    )


def joined(*sources: PairSource) -> PairSource:
    """Several folders as one, in their order: pairs of generated data and of real ones.

    Raises:
        ValueError: none, or they are not of one flow, shape, kind of numbers and number of classes, with both.
    """
    if not sources:
        raise ValueError("there are no pairs to join")
    first = sources[0]
    for other in sources[1:]:
        for name in ("shape", "num_classes", "dtype", "origin"):
            a, b = (source.records[0][name] for source in (first, other))
            if name == "origin":
                a, b = a.get("sha256"), b.get("sha256")
            if a != b:
                told = "sha256 of the flow" if name == "origin" else name
                raise ValueError(f"pairs of {first.name} and {other.name} cannot be joined: {told} {a} and {b}")
    return PairSource(
        name=" and ".join(source.name for source in sources),
        shape=first.shape,
        num_classes=first.num_classes,
        records=tuple(record for source in sources for record in source.records),
        images=tuple(shard for source in sources for shard in source.images),
        noise=tuple(shard for source in sources for shard in source.noise),
        labels=tuple(shard for source in sources for shard in source.labels),
    )


class ShardFiles(NamedTuple):
    """The files of one shard; that of the labels is there if there are labels."""

    images: Path
    noise: Path
    labels: Path


def shard_files(folder: Path, number: int) -> ShardFiles:
    """Where a shard lies."""
    return ShardFiles(*(folder / f"{kind}-{number:05d}.npy" for kind in ShardFiles._fields))
