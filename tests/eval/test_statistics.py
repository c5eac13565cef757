import numpy as np
import pytest

from eval.statistics import empty, mean_and_covariance, merge, update


@pytest.fixture
def features():
    return np.random.RandomState(0).normal(3.0, 2.0, (101, 7)).astype(np.float32)


def test_agrees_with_numpy(features):
    mean, covariance = mean_and_covariance(update(empty(7), features))
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_does_not_depend_on_the_batch_size(features, batch_size):
    statistics = empty(7)
    for start in range(0, len(features), batch_size):
        statistics = update(statistics, features[start : start + batch_size])
    whole = update(empty(7), features)
    assert statistics.n == 101
    for a, b in zip(mean_and_covariance(statistics), mean_and_covariance(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_merging_parts_is_the_whole(features):
    parts = merge(update(empty(7), features[:40]), update(empty(7), features[40:]))
    whole = update(empty(7), features)
    assert parts.n == whole.n == 101
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-13)
    np.testing.assert_allclose(parts.outer, whole.outer, rtol=1e-13)


def test_refusals(features):
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        mean_and_covariance(update(empty(7), features[:1]))
    with pytest.raises(ValueError, match="dimension 7, expected 5"):
        update(empty(5), features)
    with pytest.raises(ValueError, match="dimensions 5 and 7"):
        merge(empty(5), empty(7))
    features[[3, 5], 0] = np.nan
    with pytest.raises(ValueError, match="2 of 101 feature vectors"):
        update(empty(7), features)
