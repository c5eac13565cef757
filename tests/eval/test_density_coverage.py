import math

import numpy as np
import pytest

from eval.density_coverage import density_coverage


def brute_force(generated, real, k):
    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2))

    reach = [sorted(distance(x, other) for other in real)[k] for x in real]
    holds = np.array([[distance(y, x) <= r for x, r in zip(real, reach, strict=True)] for y in generated])
    return holds.sum() / (k * len(generated)), holds.any(axis=0).mean()


@pytest.mark.parametrize("k", [1, 5])
def test_agrees_with_brute_force(k):
    random = np.random.RandomState(0)
    generated, real = random.normal(0.5, 0.7, (40, 3)), random.normal(size=(30, 3))
    result = density_coverage(generated, real, k=k, block=7)
    assert result == pytest.approx(brute_force(generated, real, k), rel=1e-12)
    assert 0 < result.coverage < 1


def test_samples_of_the_real_distribution_have_the_expected_density_and_coverage():
    # Naeem et al. 2020, lemmas 1 and 2: whatever the distribution is.
    n, m, k, repeats = 30, 20, 3, 400
    random = np.random.RandomState(1)
    values = np.array(
        [density_coverage(random.normal(size=(m, 2)), random.normal(size=(n, 2)), k=k) for _ in range(repeats)]
    )
    coverage = 1 - math.prod(n - i for i in range(1, k + 1)) / math.prod(n + m - i for i in range(1, k + 1))
    error = values.std(axis=0) / math.sqrt(repeats)
    assert np.all(np.abs(values.mean(axis=0) - [1.0, coverage]) < 3.5 * error)
    assert np.all(error < 0.02)


def test_one_repeated_sample_is_dense_and_covers_little():
    real = np.random.RandomState(3).normal(size=(200, 8))
    result = density_coverage(np.repeat(real[:1], 50, axis=0), real, k=5)
    assert result.density >= 1 / 5
    assert result.coverage < 0.2
    assert density_coverage(real + 100, real, k=5) == (0.0, 0.0)


def test_order_does_not_matter():
    random = np.random.RandomState(4)
    generated, real = random.normal(size=(40, 3)), random.normal(size=(30, 3))
    assert density_coverage(generated[::-1], real[random.permutation(30)]) == density_coverage(generated, real)


def test_refusals():
    with pytest.raises(ValueError, match="more than 5 samples on each side, got 5 generated and 9 real"):
        density_coverage(np.zeros((5, 2)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="k is 0"):
        density_coverage(np.zeros((5, 2)), np.zeros((9, 2)), k=0)
