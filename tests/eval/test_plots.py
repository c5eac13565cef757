import io

import numpy as np
import pytest
from PIL import Image

from eval.plots import loss_curves, metric_against_nfe


def points(line):
    """The coordinates of a line."""
    x, y = np.asarray(line.get_data())
    return x.tolist(), y.tolist()


def train_rows(n, **more):
    return [
        {"step": i, "loss": 1.0 / (i + 1), **{f"loss_t{q}": 0.1 * q for q in (1, 2, 3, 4)}, **more} for i in range(n)
    ]


def metric_rows():
    rows = []
    for sampler, value in (("multistep", 4.0), ("euler", 40.0)):
        for nfe in (4, 1, 2):
            rows.append(
                {"metric": "fd_pixels_2k", "value": value / nfe, "nfe": nfe, "sampler": sampler, "real_floor": 0.34}
            )
    return rows


def test_panels_follow_what_the_rows_hold():
    figure = loss_curves(train_rows(10, gradient_norm=1.0, learning_rate=1e-3))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        *("loss", "loss by noise level", "gradient norm", "learning rate")
    ]
    assert [axes.get_title(loc="left") for axes in loss_curves([{"step": 0, "loss": 1.0}]).axes] == ["loss"]
    np.testing.assert_allclose(points(figure.axes[0].lines[0])[1], [1.0 / (i + 1) for i in range(10)])
    assert len(figure.axes[1].lines) == 4


def test_many_points_get_a_running_mean():
    axes = loss_curves([{"step": i, "loss": i % 2} for i in range(400)]).axes[0]
    raw, mean = axes.lines
    assert len(points(raw)[0]) == 400
    np.testing.assert_allclose(points(mean)[1], 0.5)
    assert points(mean)[0][-1] == 390


def test_metric_lines_are_in_order_of_nfe():
    axes = metric_against_nfe(metric_rows(), "fd_pixels_2k").axes[0]
    multistep, euler, floor = axes.lines
    assert points(multistep) == ([1, 2, 4], [4.0, 2.0, 1.0])
    assert points(euler) == ([1, 2, 4], [40.0, 20.0, 10.0])
    assert points(floor)[1] == [0.34, 0.34]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
    assert axes.get_yscale() == "log"


def test_figures_are_drawn_without_a_display():
    for figure in (loss_curves(train_rows(100)), metric_against_nfe(metric_rows(), "fd_pixels_2k")):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        assert np.asarray(Image.open(stream)).std() > 0


def test_nothing_to_plot():
    with pytest.raises(ValueError, match="no row has a loss"):
        loss_curves([{"step": 0}])
    with pytest.raises(ValueError, match=r"there are \['fd_pixels_2k'\]"):
        metric_against_nfe(metric_rows(), "fid_50k")
