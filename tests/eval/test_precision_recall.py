import numpy as np
import pytest

from eval.precision_recall import precision_recall


def brute_force(points, centers, k):
    def distance(a, b):
        return np.sqrt(np.sum((a.astype(np.float64) - b) ** 2))

    covered = 0
    radii = [sorted(distance(c, other) for other in centers)[k] for c in centers]
    for point in points:
        covered += any(distance(point, c) <= r for c, r in zip(centers, radii, strict=True))
    return covered / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_agrees_with_brute_force(k):
    random = np.random.RandomState(0)
    generated = random.normal(0.5, 0.7, (40, 3)).astype(np.float32)
    real = random.normal(0.0, 1.0, (30, 3)).astype(np.float32)
    result = precision_recall(generated, real, k=k)
    assert (result.precision, result.recall) == (
        brute_force(generated, real, k),
        brute_force(real, generated, k),
    )
    assert 0 < result.recall < result.precision < 1


def test_blocks_do_not_change_the_result():
    random = np.random.RandomState(1)
    generated, real = random.normal(size=(50, 2)), random.normal(0.5, 1.0, size=(60, 2))
    assert precision_recall(generated, real, block=7) == precision_recall(generated, real)


def test_the_same_set_is_covered_and_a_distant_one_is_not():
    x = np.random.RandomState(2).normal(size=(20, 5)).astype(np.float32)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)


def test_one_repeated_sample_has_precision_but_no_recall():
    real = np.random.RandomState(3).normal(size=(200, 64)).astype(np.float32)
    collapsed = np.repeat(real[:1], 50, axis=0)
    result = precision_recall(collapsed, real)
    # Its ball has radius 0 and holds the one real sample it copies.
    assert result == (1.0, 1 / 200)


def test_too_few_samples():
    with pytest.raises(ValueError, match="more than 3 samples on each side, got 3 generated and 9 real"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
