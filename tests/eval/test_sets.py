import numpy as np
import pytest
from sklearn.datasets import load_digits

from eval.features import pixels
from eval.kid import kernel_distance
from eval.precision_recall import precision_recall
from eval.sets import compare_halves, compare_sets


def test_real_digits_half_against_half():
    # Seeds 0 to 5 give 0.22 to 0.34.
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    floor = compare_halves(pixels.extract(images), seed=0)
    assert floor["fd"] == pytest.approx(0.3363, abs=1e-4)
    assert floor["kid"] == pytest.approx(0.00255, abs=1e-5)
    assert 0.8 < floor["precision"] < 1
    assert 0.8 < floor["recall"] < 1


def test_compare_sets_joins_the_measures():
    random = np.random.RandomState(0)
    a, b = (random.normal(i, 1.0, (50, 4)).astype(np.float32) for i in (0, 1))
    precision, recall = precision_recall(a, b)
    assert compare_sets(a, b) == {"kid": kernel_distance(a, b).mean, "precision": precision, "recall": recall}


def test_floor_needs_two_halves():
    with pytest.raises(ValueError, match="at least 8 real images, got 7"):
        compare_halves(np.zeros((7, 4), np.float32))
