"""A toy world for the tests: two classes of 3x3 images told apart by their brighter half."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from eval.classifier import Classifier, train_classifier


class Toy(NamedTuple):
    """Images and labels."""

    image: np.ndarray
    label: np.ndarray


def make_toy(n: int, seed: int) -> Toy:
    """Draw n images [n, 3, 3, 1] and their labels."""
    random = np.random.RandomState(seed)
    label = np.arange(n, dtype=np.int32) % 2
    image = random.randint(0, 100, (n, 3, 3, 1))
    image[label == 0, 0] += 150
    image[label == 1, 2] += 150
    return Toy(image.astype(np.uint8), label)


@pytest.fixture(scope="session")
def toy() -> Toy:
    return make_toy(200, seed=0)


@pytest.fixture(scope="session")
def train_toy(toy: Toy) -> Callable[[int], Classifier]:
    held_out = make_toy(60, seed=1)
    return lambda seed: train_classifier(
        toy.image,
        toy.label,
        held_out.image,
        held_out.label,
        num_classes=2,
        seed=seed,
        steps=30,
        batch_size=32,
    )


@pytest.fixture(scope="session")
def classifier(train_toy: Callable[[int], Classifier]) -> Classifier:
    return train_toy(0)
