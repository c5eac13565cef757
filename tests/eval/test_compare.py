import numpy as np
import pytest
from sklearn.datasets import load_digits

from eval.compare import compare, real_floor
from eval.features import pixels
from eval.frechet import frechet_distance
from eval.statistics import empty, mean_and_covariance, update


def test_real_digits_half_against_half():
    # Seeds 0 to 5 give 0.22 to 0.34.
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    floor = real_floor(pixels.extract(images), seed=0)
    assert floor["fd"] == pytest.approx(0.3363, abs=1e-4)
    assert floor["kid"] == pytest.approx(0.00255, abs=1e-5)
    assert 0.8 < floor["precision"] < 1
    assert 0.8 < floor["recall"] < 1


def test_compare_joins_the_measures():
    random = np.random.RandomState(0)
    a, b = (random.normal(i, 1.0, (50, 4)).astype(np.float32) for i in (0, 1))
    moments = mean_and_covariance(update(empty(4), b))
    values = compare(a, *moments, b)
    assert list(values) == ["fd", "kid", "precision", "recall"]
    assert values["fd"] == frechet_distance(*mean_and_covariance(update(empty(4), a)), *moments)
    assert compare(a, *moments, None) == {"fd": values["fd"]}


def test_floor_needs_two_halves():
    with pytest.raises(ValueError, match="at least 8 real images, got 7"):
        real_floor(np.zeros((7, 2), dtype=np.float32))
