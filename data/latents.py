"""Latents of a data set, computed once: shards of arrays, and a record of what made them and how they are scaled.

A folder holds `record.json` and, for every shard, `moments-NNNNN.npy`, float32 [n, height, width, 2 x channels], the
means and then the log variances of the posterior, and `labels-NNNNN.npy` if there are labels. Both moments are kept,
so that training draws a latent anew each time it sees an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from . import store
from .latents_scale import Scale, ScaleOf
from .source import Batch, Example

FORMAT_VERSION = 1
_REMEDY = "encode the data again"
_KEYS = ("encoder", "images", "count", "shape", "dtype", "num_classes", "shard_size", "mean", "std", "shift", "factor")


class LatentExample(Example):
    """An example whose `image` is the mean of its latent, float32, beside the log variance."""

    logvar: Float32[np.ndarray, "height width channels"]


class LatentBatch(Batch):
    """The same stacked along a leading axis."""

    logvar: Float32[np.ndarray, "batch height width channels"]


@dataclass(frozen=True, eq=False)
class LatentSource:
    """Latents as their encoder gave them, read from disk when they are asked for; made by `latents`.

    Attributes:
        name: of the images and of the encoder.
        shape: (height, width, channels) of a latent.
        num_classes: number of classes, 0 without labels.
        scale: how a model is to see them.
        record: everything that `record.json` says.
        moments, labels: the arrays of each shard, mapped into memory.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    scale: Scale
    record: Mapping[str, Any]
    moments: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return self.record["count"]

    def __getitem__(self, index: int) -> LatentExample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has no example {index}, only 0 .. {len(self) - 1}")
        shard, row = divmod(index, self.record["shard_size"])
        mean, logvar = np.split(np.array(self.moments[shard][row]), 2, axis=-1)
        example = LatentExample(image=mean, logvar=logvar)
        if self.num_classes:
            example["label"] = np.int32(self.labels[shard][row])
        return example

    def take(self, indices: Int[np.ndarray, "batch"]) -> LatentBatch:
        """The examples at `indices` as one batch, with their log variances."""
        examples = [self[int(index)] for index in indices]
        batch = LatentBatch(
            image=np.stack([example["image"] for example in examples]),
            logvar=np.stack([example["logvar"] for example in examples]),
        )
        if self.num_classes:
            batch["label"] = np.asarray([example["label"] for example in examples], np.int32)
        return batch


def latents(
    folder: str | Path,
    *,
    encoder: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] | None = None,
    scale_of: ScaleOf | None = None,
) -> LatentSource:
    """The latents that `write_latents` left in a folder; what is given besides is what they must be.

    Args:
        folder: where they are.
        encoder: the encoder they must be of, by its `sha256`.
        shape: the (height, width, channels) they must have.
        scale_of: how they must be scaled.

    Raises:
        FileNotFoundError: no such folder, no record, or a shard is missing.
        ValueError: latents of another encoder, shape or scale, with both; an unfinished, foreign or damaged folder.
    """
    folder = Path(folder).expanduser()
    record = read_record(folder)
    problems = _problems(record, encoder, shape, scale_of)
    if problems:
        raise ValueError(f"the latents in {folder} are not those of this run:\n  " + "\n  ".join(problems))
    height, width, channels = record["shape"]
    rows = store.shard_rows(record["count"], record["shard_size"])
    names = [shard_files(folder, number) for number in range(len(rows))]
    moments = [
        store.map_array(name.moments, (n, height, width, 2 * channels), np.float32, remedy=_REMEDY)
        for name, n in zip(names, rows, strict=True)
    ]
    labels = [
        store.map_array(name.labels, (n,), np.int32, remedy=_REMEDY)
        for name, n in zip(names, rows, strict=True)
        if record["num_classes"]
    ]
    return LatentSource(
        name=f"{record['images']['name']} in latents of {record['encoder']['sha256'][:12]}",
        shape=(height, width, channels),
        num_classes=record["num_classes"],
        scale=Scale(tuple(record["shift"]), tuple(record["factor"])),
        record=record,
        moments=tuple(moments),
        labels=tuple(labels),
    )


def _problems(
    record: Mapping[str, Any],
    encoder: Mapping[str, Any] | None,
    shape: tuple[int, ...] | None,
    scale_of: ScaleOf | None,
) -> list[str]:
    """What of the latents is not as it must be, with both values."""
    problems = []
    if encoder is not None and record["encoder"]["sha256"] != encoder["sha256"]:
        problems.append(f"encoder: {_describe(record['encoder'])} there, {_describe(encoder)} here")
    if shape is not None and tuple(record["shape"]) != tuple(shape):
        problems.append(f"shape: {tuple(record['shape'])} there, {tuple(shape)} here")
    if scale_of is not None:
        here = scale_of(tuple(record["mean"]), tuple(record["std"]))
        problems += [
            f"{name} of each channel: {_numbers(record[name])} there, {_numbers(values)} here"
            for name, values in here._asdict().items()
            if not np.allclose(record[name], values, rtol=1e-6, atol=1e-6)
        ]
    return problems


# ---- Files -----------------------------------------------------------------------------------------------------------


class ShardFiles(NamedTuple):
    """The files of one shard; that of the labels is there if there are labels."""

    moments: Path
    labels: Path


def shard_files(folder: Path, number: int) -> ShardFiles:
    """Where a shard lies."""
    return ShardFiles(folder / f"moments-{number:05d}.npy", folder / f"labels-{number:05d}.npy")


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished folder; the errors are those of `latents`."""
    return store.read_record(folder, what="latents", keys=_KEYS, format_version=FORMAT_VERSION)


def _describe(encoder: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{key} {value}" for key, value in encoder.items() if key not in ("sha256", "config"))
    return f"{encoder['sha256'][:12]} ({rest})" if rest else encoder["sha256"][:12]


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
