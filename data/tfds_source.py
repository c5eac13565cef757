"""Any TensorFlow Datasets data set, read without TensorFlow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from .pixels import pixels
from .source import Batch, Example


@dataclass(frozen=True, eq=False)
class TfdsSource:
    """Examples of a prepared TFDS data set, decoded when they are read; made by `tfds_source`.

    Attributes:
        name: data set, version and split, such as "mnist/3.0.1/train".
        shape: (height, width, channels) every image has, or is brought to by `size`.
        num_classes: number of classes, 0 without labels.
        records: TFDS's own random-access source.
        files: (record file, number of its examples in this split), in order.
        image_key, label_key: where the features lie in a record.
        size: centre crop and resize to this, or None.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    records: Any
    files: tuple[tuple[str, int], ...]
    image_key: str
    label_key: str | None
    size: int | None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        try:
            record = self.records[index]
        except IndexError:
            raise
        except Exception as error:  # array_record, the parser and Pillow each have their own
            raise RuntimeError(
                f"cannot read example {index} of {self.name} from {self._file_of(index)}: the record is corrupt or"
                f" the file is cut short or missing; prepare the data set again ({str(error).strip() or 'no details'})"
            ) from error
        return self._example(record)

    def take(self, indices: Int[np.ndarray, "batch"]) -> Batch:
        """The examples at `indices` as one batch; twice as fast as one by one."""
        try:
            records = self.records.__getitems__(indices.tolist())
        except Exception:  # which one it was is found by reading them singly
            examples = [self[index] for index in indices.tolist()]
        else:
            examples = [self._example(record) for record in records]
        batch = Batch(image=np.stack([example["image"] for example in examples]))
        if self.num_classes:
            batch["label"] = np.asarray([example["label"] for example in examples], np.int32)
        return batch

    def _example(self, record: dict[str, Any]) -> Example:
        image = record[self.image_key]
        if self.size is not None:
            grey = image.shape[2] == 1
            opened = Image.fromarray(image[..., 0] if grey else image)
            image = pixels(opened, channels=self.shape[2], size=self.size)
        if self.label_key is None:
            return Example(image=image)
        return Example(image=image, label=np.int32(record[self.label_key]))

    def _file_of(self, index: int) -> str:
        for file, count in self.files:
            if index < count:
                return file
            index -= count
        return self.files[-1][0]


def tfds_source(
    name: str,
    *,
    split: str = "train",
    data_dir: str | Path | None = None,
    size: int | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
) -> TfdsSource:
    """A data set that `tensorflow_datasets` knows, already prepared as ArrayRecord.

    Args:
        name: TFDS's name, also with config and version, such as "mnist" or "mnist:3.0.1".
        split: TFDS's split, also a part such as "train[:90%]".
        data_dir: where data sets are prepared; TFDS's own default (~/tensorflow_datasets) if None.
        size: centre-crop to a square and resize to size x size; needed where images vary in size.
        image_key: feature to read; found if there is only one image, or one called "image".
        label_key: class label to read; found if there is only one, or one called "label".

    Raises:
        ValueError: unknown name, split or key (with the closest), images of no fixed size without `size`.
        FileNotFoundError: not prepared: where it was looked for, what should be there and how to get it.
        RuntimeError: when an example is read: a corrupt record, with its index and file.
    """
    builder = _builder(name, data_dir)
    _check_prepared(builder)
    try:
        chosen = builder.info.splits[split]
    except ValueError as error:
        raise ValueError(
            f"{builder.info.full_name} has no split {split!r}: {error}{_did_you_mean(split, builder.info.splits)}"
        ) from error
    files = tuple((str(part.filename), int(part.take)) for part in chosen.file_instructions)
    present = {path.name for path in builder.data_path.iterdir()}
    absent = [file for file, _ in files if file.rpartition("/")[2] not in present]
    if absent:
        raise FileNotFoundError(f"{len(absent)} of {len(files)} record files are missing: {', '.join(absent[:3])}")
    image_key, label_key, shape, num_classes = _features(builder.info, image_key, label_key, size)
    return TfdsSource(
        name=f"{builder.info.full_name}/{split}",
        shape=shape,
        num_classes=num_classes,
        records=builder.as_data_source(split=split),
        files=files,
        image_key=image_key,
        label_key=label_key,
        size=size,
    )


def _builder(name: str, data_dir: str | Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=None if data_dir is None else os.path.expanduser(data_dir))
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f"tensorflow_datasets knows no {name!r}{_did_you_mean(name, known)}") from error
    except (AssertionError, ValueError) as error:  # an unknown version or config
        raise ValueError(f"tensorflow_datasets cannot load {name!r}: {error}") from error


def _check_prepared(builder: Any) -> None:
    """Raises before TFDS does: for missing data it claims that they are prepared as TFRecord."""
    path, root = builder.data_path, builder.data_dir_root
    prepare = f'tfds.builder("{builder.name}", data_dir="{root}", file_format="array_record").download_and_prepare()'
    if not (path / "dataset_info.json").exists():
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.exists() else []
        raise FileNotFoundError(
            f"{builder.info.full_name} is not prepared at {path}: expected dataset_info.json, features.json and"
            f" {builder.name}-*.array_record-* files there (folders found in {root}: {', '.join(found) or 'none'})."
            f" Pass data_dir=, or prepare it with {prepare}"
        )
    if builder.info.file_format.value != "array_record":
        raise FileNotFoundError(
            f"{path} is prepared as {builder.info.file_format.value}, but random access needs array_record;"
            f" prepare it again with {prepare}"
        )


def _features(
    info: Any, image_key: str | None, label_key: str | None, size: int | None
) -> tuple[str, str | None, tuple[int, int, int], int]:
    import tensorflow_datasets as tfds

    images = {key: value for key, value in info.features.items() if isinstance(value, tfds.features.Image)}
    labels = {key: value for key, value in info.features.items() if isinstance(value, tfds.features.ClassLabel)}
    image_key = _pick(info.full_name, "image", images, image_key)
    if image_key is None:
        raise ValueError(f"{info.full_name} has no images; its features are {', '.join(info.features)}")
    label_key = _pick(info.full_name, "label", labels, label_key)
    height, width, channels = images[image_key].shape
    # np_dtype and not dtype, which imports TensorFlow.
    if images[image_key].np_dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            f"{info.full_name}: {image_key!r} is {images[image_key].np_dtype.__name__} with {channels} channels,"
            f" expected uint8 with 1 or 3"
        )
    if size is not None:
        height = width = size
    if height is None or width is None:
        raise ValueError(f"{info.full_name}: images vary in size; pass size= to centre-crop and resize them")
    return image_key, label_key, (height, width, channels), labels[label_key].num_classes if label_key else 0


def _pick(dataset: str, kind: str, found: dict[str, Any], wanted: str | None) -> str | None:
    """The wanted feature, or the one called like its kind, or the only one; None if there are none."""
    if wanted is not None and wanted not in found:
        raise ValueError(f"{dataset} has no {kind} {wanted!r}, only {', '.join(found) or 'none'}")
    if wanted is None and kind not in found and len(found) > 1:
        raise ValueError(f"{dataset} has several features of this kind, pass {kind}_key= one of {', '.join(found)}")
    return wanted or (kind if kind in found else next(iter(found), None))


def _did_you_mean(name: str, known: Any) -> str:
    closest = get_close_matches(name.lower(), list(known), 3, cutoff=0.5)
    return f"; did you mean {' or '.join(closest)}?" if closest else ""
