import numpy as np
import pytest

from eval.frechet import frechet_distance

DIM = 6


def covariance(seed, rank=DIM):
    factor = np.random.RandomState(seed).normal(size=(DIM, rank))
    return factor @ factor.T


def mean(seed):
    return np.random.RandomState(100 + seed).normal(size=DIM)


@pytest.mark.parametrize("rank", [DIM, 2])
def test_identical_gaussians_have_distance_zero(rank):
    s = covariance(0, rank)
    assert abs(frechet_distance(mean(0), s, mean(0), s)) < 1e-12 * np.trace(s)


@pytest.mark.parametrize("rank", [DIM, 3])
def test_equal_covariances_leave_the_shift_of_the_means(rank):
    s = covariance(1, rank)
    expected = np.sum((mean(0) - mean(1)) ** 2)
    np.testing.assert_allclose(frechet_distance(mean(0), s, mean(1), s), expected, rtol=1e-12)


def test_isotropic_gaussians():
    distance = frechet_distance(np.zeros(DIM), 9.0 * np.eye(DIM), np.zeros(DIM), 0.25 * np.eye(DIM))
    np.testing.assert_allclose(distance, DIM * (3.0 - 0.5) ** 2, rtol=1e-13)


def test_commuting_covariances():
    rotation = np.linalg.qr(covariance(2))[0]
    a, b = np.array([0.0, 1, 2, 3, 4, 5]), np.array([2.0, 0, 7, 1, 4, 0.5])
    rotated = [rotation @ np.diag(v) @ rotation.T for v in (a, b)]
    distance = frechet_distance(np.zeros(DIM), rotated[0], np.zeros(DIM), rotated[1])
    np.testing.assert_allclose(distance, np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rtol=1e-7)


@pytest.mark.parametrize("rank", [DIM, 2])
def test_symmetry(rank):
    a, b = (mean(0), covariance(3, rank)), (mean(1), covariance(4))
    np.testing.assert_allclose(frechet_distance(*a, *b), frechet_distance(*b, *a), rtol=1e-12)


def test_rank_one_covariances_have_a_closed_form():
    # (u u^T)^(1/2) = u u^T / |u|, so the nuclear norm of the product of the roots is |u . v|.
    u, v = mean(2), mean(3)
    distance = frechet_distance(np.zeros(DIM), np.outer(u, u), np.zeros(DIM), np.outer(v, v))
    np.testing.assert_allclose(distance, u @ u + v @ v - 2 * abs(u @ v), rtol=1e-6)


def test_agrees_with_the_square_root_of_the_product():
    a, b = covariance(5), covariance(6)
    eigenvalues = np.linalg.eigvals(a @ b)
    expected = np.trace(a) + np.trace(b) - 2 * np.sqrt(eigenvalues.astype(complex)).real.sum()
    np.testing.assert_allclose(frechet_distance(mean(0), a, mean(0), b), expected, rtol=1e-10)
