"""What is summed on the device is what float64 on the host sums, far from the origin too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.frechet import frechet_distance
from eval.statistics import add_sums, batch_sums, empty, mean_and_covariance, update

DIM = 24


@pytest.fixture
def features():
    random = np.random.RandomState(0)
    return (random.normal(size=(500, DIM)) @ random.normal(size=(DIM, DIM)) + 30).astype(np.float32)


def summed(x, batch_size):
    statistics = empty(DIM)
    for start in range(0, len(x), batch_size):
        part = x[start : start + batch_size]
        padded = np.full((batch_size, DIM), np.nan, np.float32)
        padded[: len(part)] = part
        statistics = add_sums(statistics, jax.jit(batch_sums)(padded, jnp.arange(batch_size) < len(part)))
    return statistics


@pytest.mark.parametrize("batch_size", [1, 64, 500])
def test_a_distance_does_not_depend_on_the_batch_size(features, batch_size):
    other = mean_and_covariance(update(empty(DIM), features[::-1][:300] * np.float32(1.1)))
    expected = frechet_distance(*mean_and_covariance(update(empty(DIM), features)), *other)
    found = summed(features, batch_size)
    assert found.n == 500
    assert frechet_distance(*mean_and_covariance(found), *other) == pytest.approx(expected, rel=3e-7)


def test_samples_may_come_in_any_order(features):
    order = np.random.RandomState(1).permutation(len(features))
    one, other = (mean_and_covariance(summed(x, 64)) for x in (features, features[order]))
    scale = np.abs(one[1]).max()
    np.testing.assert_allclose(one[0], other[0], rtol=1e-7)
    np.testing.assert_allclose(one[1], other[1], atol=1e-6 * scale)


def test_values_that_are_not_finite_are_counted_but_not_in_the_padding(features):
    features[[3, 70], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="1 of 64 feature vectors"):
        summed(features, 64)
