"""Made-up photographs, stored as ImageNet is by TensorFlow Datasets: to measure input at its size without having it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAME, VERSION, CLASSES = "imagenet2012", "5.1.0", 1000
WIDTH, HEIGHT = 500, 375  # ImageNet's most frequent size; its files have 110 kB in the mean


def jpegs(n: int, *, seed: int = 0) -> Iterator[bytes]:
    """Files of some 110 kB: blurred colours with grain."""
    random = np.random.default_rng(seed)
    for _ in range(n):
        small = random.integers(0, 256, (24, 32, 3), np.uint8)
        large = np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        grainy = np.clip(large + random.normal(0, 18, large.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grainy).save(file, "JPEG", quality=91)
        yield file.getvalue()


def write(folder: Path, n: int, *, files: int = 4) -> Path:
    """n of them in ArrayRecord files below the folder, which is then a `data_dir`; as TFDS writes them itself.

    Raises:
        ValueError: unless there is at least one for each file.
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    if n < files:
        raise ValueError(f"{files} files need at least as many photographs, got {n}")
    place = folder / NAME / VERSION
    place.mkdir(parents=True, exist_ok=True)
    lengths, written = [len(part) for part in np.array_split(np.arange(n), files)], 0
    photographs = jpegs(n)
    for number, length in enumerate(lengths):
        path = place / f"{NAME}-train.array_record-{number:05d}-of-{files:05d}"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for i in range(length):
            example: Any = tf_example_pb2.Example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(next(photographs))
            feature["label"].int64_list.value.append((written + i) % CLASSES)
            feature["file_name"].bytes_list.value.append(f"{written + i}.JPEG".encode())
            writer.write(example.SerializeToString())
        writer.close()
        written += length
    (place / "dataset_info.json").write_text(json.dumps(_info(place, lengths)))
    (place / "features.json").write_text(json.dumps(_features()))
    return folder


def _info(place: Path, lengths: list[int]) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in place.iterdir())
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {
        "filepathTemplate": template,
        "name": "train",
        "numBytes": str(size),
        "shardLengths": [str(n) for n in lengths],
    }
    return {"fileFormat": "array_record", "name": NAME, "version": VERSION, "splits": [split]}


def _features() -> dict[str, Any]:
    package = "tensorflow_datasets.core.features"
    image = {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["-1", "-1", "3"]}}
    features = {
        "file_name": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "label": {"pythonClassName": f"{package}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "1000"}},
    }
    return {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": features}}
