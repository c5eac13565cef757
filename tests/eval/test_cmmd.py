import numpy as np
import pytest

from eval.cmmd import cmmd, unit


def test_two_points_have_a_closed_form():
    a, b = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    assert cmmd(a, b) == pytest.approx(2000 * (1 - np.exp(-((0.4**2 + 0.8**2) / 200))), rel=1e-12)


def test_all_pairs_count_and_lengths_do_not():
    random = np.random.RandomState(0)
    x, y = random.normal(size=(7, 5)), random.normal(0.5, 1.0, (9, 5))

    def kernel(a, b):
        return np.mean([[np.exp(-np.sum((p - q) ** 2) / 200) for q in b] for p in a])

    u, v = unit(x), unit(y)
    expected = 1000 * (kernel(u, u) + kernel(v, v) - 2 * kernel(u, v))
    assert cmmd(x, y, block=4) == pytest.approx(expected, rel=1e-9)
    assert cmmd(3.0 * x, y * np.arange(1, 10)[:, None]) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_have_distance_zero_in_any_order_and_distance_is_symmetric():
    random = np.random.RandomState(1)
    x, y = random.normal(size=(50, 8)).astype(np.float32), random.normal(0.2, 1.0, (40, 8)).astype(np.float32)
    assert abs(cmmd(x, x[random.permutation(50)])) < 1e-13
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), rel=1e-9)
    assert cmmd(x, y) > 1e-3


def test_digits_survive_where_kernel_values_are_near_one():
    # A turn by so small an angle moves the kernel in its eighth digit.
    angle = 1e-3
    a, b = np.array([[1.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]])
    assert cmmd(a, b) == pytest.approx(1000 * angle**2 / 100, rel=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="2 of 3 feature vectors are 0 or not finite"):
        cmmd(np.array([[0.0, 0.0], [1.0, 0.0], [np.nan, 1.0]]), np.ones((2, 2)))
    with pytest.raises(ValueError, match="at least one sample on each side, got 0 generated, 2 real"):
        cmmd(np.zeros((0, 2)), np.ones((2, 2)))
