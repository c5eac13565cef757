import numpy as np
import pytest

from eval.pareto import Point, front, goodness, pareto_plot, points


def row(samples, metric, value, sampler="one"):
    return {"samples": samples, "sampler": sampler, "metric": metric, "value": value}


def test_the_front_are_the_points_that_none_beats():
    values = np.array([[1.0, 4], [2, 3], [1, 3], [3, 1], [3, 1], [0, 4], [2, 2]])
    assert front(values).tolist() == [True, True, False, True, True, False, False]
    assert front(values[:1]).tolist() == [True]


def test_in_one_measure_the_front_is_the_best():
    assert front(np.array([[0.3], [0.9], [0.9]])).tolist() == [False, True, True]


def test_distances_are_turned():
    metrics = ("recall_pixels_2k", "fd_pixels_2k", "fid_tf1_2k", "kid_inception_tf1_2k")
    np.testing.assert_array_equal(goodness(np.ones((2, 4)), metrics), [[1, -1, -1, -1]] * 2)


def test_points_have_all_metrics():
    rows = [row("w 1", "a", 1.0), row("w 1", "b", 2.0), row("w 2", "a", 3.0)]
    assert points(rows, ("a", "b")) == [Point("w 1, one", (1.0, 2.0))]
    with pytest.raises(ValueError, match=r"no setting has all of a, c; there are \['a', 'b'\]"):
        points(rows, ("a", "c"))


def test_panels_join_the_front_of_two_measures():
    metrics = ("recall_9", "precision_9", "fd_9")
    found = [Point("a", (0.1, 0.9, 5.0)), Point("b", (0.5, 0.5, 1.0)), Point("c", (0.4, 0.4, 9.0))]
    figure = pareto_plot(found, metrics)
    assert [(axes.get_xlabel(), axes.get_title(loc="left")) for axes in figure.axes] == [
        ("recall_9", "precision_9"),
        ("recall_9", "fd_9"),
        ("precision_9", "fd_9"),
    ]
    assert [np.asarray(axes.lines[-1].get_xdata()).tolist() for axes in figure.axes] == [[0.1, 0.5], [0.5], [0.5, 0.9]]
    with pytest.raises(ValueError, match="two measures or more, got fd_9"):
        pareto_plot(found, metrics[2:])
