"""The pass that encodes a data set into a folder of latents, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import store
from .fingerprint import fingerprint
from .latents import FORMAT_VERSION, ShardFiles, latents, shard_files
from .latents_scale import ScaleOf
from .source import Source, take
from .writing_progress import progress

Encode: TypeAlias = Callable[[np.ndarray], tuple[Any, Any]]
"""encode(uint8 images [B, H, W, C]) -> mean and log variance of their latents, float32 [B, h, w, c] both"""


def write_latents(
    folder: str | Path,
    images: Source,
    encode: Encode,
    *,
    encoder: Mapping[str, Any],
    scale_of: ScaleOf,
    batch_size: int = 500,
    shard_size: int = 8_000,
) -> dict[str, Any]:
    """Encode a data set into a folder and return the record.

    A shard appears when it is whole, and the record when all of them have: an interrupted call is gone on with by the
    same call. Where everything is there already, nothing is done.

    Args:
        folder: created if need be.
        images: what to encode, in its own order.
        encode: uint8 images -> mean and log variance; always called with `batch_size` images.
        encoder: what makes the latents these and no others: plain JSON values, one of them `sha256`.
        scale_of: how models are to see them, given the means and deviations of their channels.
        batch_size: images in one call.
        shard_size: latents in one file.

    Raises:
        ValueError: the folder holds latents of other images, of another encoder or scaled otherwise, or has begun
            to, or holds something else; no images; moments that are not finite.
    """
    folder = Path(folder).expanduser()
    if len(images) == 0 or batch_size < 1 or shard_size < 1:
        raise ValueError(f"nothing to encode: {len(images)} images, {batch_size=}, {shard_size=}")
    identity = fingerprint(images, seed=0, batch_size=1)
    plan = store.plain(
        {
            "format_version": FORMAT_VERSION,
            "encoder": dict(encoder),
            "images": {key: identity[key] for key in ("name", "shape", "content")},
            "count": len(images),
            "num_classes": images.num_classes,
            "dtype": "float32",
            "shard_size": shard_size,
        }
    )
    if store.begun(folder, plan, what="latents"):
        return dict(latents(folder, scale_of=scale_of).record)
    _encode_shards(folder, images, encode, batch_size, shard_size)
    shape, mean, std = _statistics(folder, len(store.shard_rows(len(images), shard_size)))
    record = store.plain({**plan, "shape": shape, "mean": mean, "std": std, **scale_of(mean, std)._asdict()})
    store.finish(folder, record)
    return record


def _encode_shards(folder: Path, images: Source, encode: Encode, batch_size: int, shard_size: int) -> None:
    starts = range(0, len(images), shard_size)
    shards = {n: range(start, min(start + shard_size, len(images))) for n, start in enumerate(starts)}
    missing = {n: rows for n, rows in shards.items() if not shard_files(folder, n).moments.exists()}
    left = sum(len(rows) for rows in missing.values())
    with progress("latents", done=len(images) - left, total=len(images)) as advance:
        for number, rows in missing.items():
            _encode_shard(shard_files(folder, number), images, encode, rows, batch_size, advance)


def _encode_shard(
    files: ShardFiles,
    images: Source,
    encode: Encode,
    rows: range,
    batch_size: int,
    advance: Callable[[int], None],
) -> None:
    parts: list[np.ndarray] = []
    labels: list[Any] = []
    for first in rows[::batch_size]:
        batch = take(images, np.arange(first, min(first + batch_size, rows.stop)))
        count = len(batch["image"])
        # One shape, one compilation: the last batch is filled up and what is too much is dropped.
        padded = np.pad(batch["image"], ((0, batch_size - count), (0, 0), (0, 0), (0, 0)))
        moments = np.concatenate([np.asarray(m, np.float32) for m in encode(padded)], axis=-1)[:count]
        if not np.isfinite(moments).all():
            raise ValueError(f"latents of {images.name}, {first} .. {first + count - 1}, hold NaN or infinite values")
        parts.append(moments)
        labels.append(batch.get("label"))
        advance(count)
    if images.num_classes:
        store.write_array(files.labels, np.concatenate(labels).astype(np.int32))
    store.write_array(files.moments, np.concatenate(parts))


def _statistics(folder: Path, shards: int) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """Shape of a latent, and by channel mean and deviation of latents drawn from their posteriors.

    Exact and without a draw: the variance is that of the means plus the mean of the variances.
    """
    count, shape = 0, (0,)
    total: Any = 0
    for number in range(shards):
        mean, logvar = np.split(np.load(shard_files(folder, number).moments, mmap_mode="r"), 2, axis=-1)
        count, shape = count + mean[..., 0].size, mean.shape[1:]
        mean = mean.astype(np.float64)
        parts = np.stack([mean, mean**2 + np.exp(logvar.astype(np.float64))])
        total = total + parts.reshape(2, -1, shape[-1]).sum(axis=1)
    first, second = total / count
    return shape, tuple(first.tolist()), tuple(np.sqrt(second - first**2).tolist())
