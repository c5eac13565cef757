import numpy as np
import pytest

from eval.diversity import euclidean, within_class_diversity


def test_all_pairs_of_each_class():
    x = np.array([[0.0], [3.0], [7.0], [1.0], [2.0]])
    labels = np.array([4, 4, 4, 9, 9])
    # (3 + 7 + 4) / 3 and 1, averaged over the two classes however many they hold.
    assert within_class_diversity(x, labels, distance=euclidean) == pytest.approx((14 / 3 + 1) / 2, rel=1e-12)
    assert within_class_diversity(x, None, distance=euclidean) == pytest.approx(
        np.mean([abs(a - b) for i, a in enumerate(x[:, 0]) for b in x[:i, 0]]), rel=1e-12
    )


def test_squared_distances_are_twice_the_variance():
    x = np.random.RandomState(0).normal(size=(30, 3))
    value = within_class_diversity(x, None, distance=lambda a, b: np.sum((a - b) ** 2, axis=1), pairs=1000)
    assert value == pytest.approx(2 * np.trace(np.cov(x, rowvar=False)), rel=1e-12)


def test_drawn_pairs_are_different_samples_and_a_function_of_the_seed():
    x = np.random.RandomState(0).randint(0, 256, (40, 2, 2, 1)).astype(np.uint8)
    seen: list[tuple] = []

    def distance(a, b):
        seen.append((a, b))
        return np.abs(a.astype(float) - b).mean(axis=(1, 2, 3))

    values = [within_class_diversity(x, None, distance=distance, pairs=25, seed=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    a, b = seen[0]
    assert len(a) == 25
    assert (a != b).any(axis=(1, 2, 3)).all()
    assert abs(values[0] - within_class_diversity(x, None, distance=distance, pairs=10_000)) < 0.1 * values[0]


def test_a_collapsed_class_has_none_and_a_lone_sample_is_refused():
    assert within_class_diversity(np.ones((5, 2)), np.zeros(5, int), distance=euclidean) == 0
    with pytest.raises(ValueError, match="class 3 has 1 sample"):
        within_class_diversity(np.ones((3, 2)), np.array([2, 2, 3]), distance=euclidean)
