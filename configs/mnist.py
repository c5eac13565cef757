"""What the MNIST configs share: the images, and a judge that also measures in a classifier's features.

Not a run. Data: TensorFlow Datasets' `mnist`, prepared as ArrayRecord in `data_dir`.
"""

from typing import Any

from ml_collections import ConfigDict

import data
from configs import digits, judges
from train import Sampler


def budget(config: ConfigDict, *, steps: int = 1500) -> ConfigDict:
    """A digits config on MNIST: 16 tokens of 7 x 7 pixels, smaller batches; the steps are those of a student."""
    config.update(
        {
            "data_dir": "~/tensorflow_datasets",
            "patch": 7,
            "steps": steps,
            "batch_size": 64,
            "sigma_data": 0.6,
            "snapshot_every": 0,
            "judged_samples": 2000,
        }
    )
    return config


def source(config: ConfigDict, split: str = "train") -> data.ArraySource:
    """The images in memory."""
    return data.cached(data.tfds_source("mnist", split=split, data_dir=config.data_dir))


def fields(config: ConfigDict, images: data.Source, samplers: tuple[Sampler, ...]) -> dict[str, Any]:
    """The fields of an Experiment beside its objective."""
    judge = judges.judge_with_classifier(
        source(config), training=source(config), held_out=source(config, "test"), limit=10_000, features=True
    )
    return {**digits.training(config, images, samplers), "judge": judge}
