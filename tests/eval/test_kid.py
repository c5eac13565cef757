import numpy as np
import pytest

from eval.kid import kernel_distance, squared_mmd


def test_mmd_is_the_mean_over_pairs():
    random = np.random.RandomState(0)
    x, y = random.normal(size=(5, 3)).astype(np.float32), random.normal(size=(5, 3)).astype(np.float32)

    def kernel(a, b):
        return (float(a.astype(np.float64) @ b.astype(np.float64)) / 3 + 1) ** 3

    off_diagonal = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = (
        np.mean([kernel(x[i], x[j]) for i, j in off_diagonal])
        + np.mean([kernel(y[i], y[j]) for i, j in off_diagonal])
        - 2 * np.mean([kernel(a, b) for a in x for b in y])
    )
    np.testing.assert_allclose(squared_mmd(x, y), expected, rtol=1e-12)


def test_expectation_has_a_closed_form():
    # With D = 1 the kernel is 1 + 3 xy + 3 x^2 y^2 + x^3 y^3, so the squared MMD is a weighted sum of squared
    # differences of moments.  N(0, 1) has moments (0, 1, 0), N(1/2, 1) has (1/2, 5/4, 13/8).
    expected = 3 * 0.5**2 + 3 * 0.25**2 + 1.625**2
    random = np.random.RandomState(0)
    draws = [squared_mmd(random.normal(size=(100, 1)), random.normal(0.5, 1.0, (100, 1))) for _ in range(400)]
    error = np.std(draws) / 20
    assert abs(np.mean(draws) - expected) < 3 * error
    assert error < 0.05 * expected


def test_subsets_as_large_as_the_sets_are_the_sets():
    random = np.random.RandomState(3)
    x, y = random.normal(size=(20, 4)), random.normal(size=(20, 4))
    result = kernel_distance(x, y)
    np.testing.assert_allclose(result.mean, squared_mmd(x, y), rtol=1e-10)
    assert result.standard_deviation == 0


def test_unbiased_on_equal_distributions():
    x = np.random.RandomState(1).normal(size=(2000, 8)).astype(np.float32)
    result = kernel_distance(x[:1000], x[1000:], subsets=30, subset_size=100)
    assert abs(result.mean) < 4 * result.standard_deviation / np.sqrt(30)
    assert kernel_distance(x[:1000], x[1000:] + 1, subsets=30, subset_size=100).mean > 0.5


def test_same_seed_same_value():
    x = np.random.RandomState(2).normal(size=(60, 4)).astype(np.float32)
    runs = [kernel_distance(x[:30], x[30:], subset_size=10, seed=seed) for seed in (7, 7, 8)]
    assert runs[0] == runs[1] != runs[2]


def test_too_few_samples():
    with pytest.raises(ValueError, match="got 1 and 5"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))
