"""The plot and the samples of the results."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from benchmarks import results_kept, results_pictures
from benchmarks.results_kept import Kept
from benchmarks.results_rows import Run, each_step_count, with_seeds
from benchmarks.results_runs import Place
from tests.benchmarks.pretended_runs import OTHER, TEACHER, done_with, table_of

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_kept_samples_are_shown_for_runs_that_are_gone(tmp_path):
    kept, path = Kept(tmp_path / "kept"), tmp_path / "samples.png"
    done = {"other": done_with({1: 1.0})}
    draw = partial(results_pictures.draw_samples, table_of(OTHER), done, Place(tmp_path), kept, path)
    results_kept.keep(OTHER, done["other"], kept)
    draw()
    assert not path.exists()
    red, blue = (Image.new("RGB", (40, 20), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    results_pictures.save(red, kept.samples("other"))
    results_pictures.save(blue, kept.samples("tiny_real"))
    draw()
    with Image.open(path) as image:
        colours = [colour for _, colour in image.getcolors(1000) or []]
    assert {(255, 0, 0), (0, 0, 255)} <= set(colours)


def test_the_plot_has_a_line_for_each_method_and_none_for_controls(tmp_path, monkeypatch):
    figures = []
    real = results_pictures.evaluation.metric_against_nfe

    def kept(rows, metric):
        figures.append(real(rows, metric))
        return figures[-1]

    monkeypatch.setattr(results_pictures.evaluation, "metric_against_nfe", kept)
    control = Run("control", "untrained", "", "tiny", control=True)
    runs = (*with_seeds(TEACHER, 1), *each_step_count(OTHER, "segments", (1, 2)), control)
    done = {run.name: done_with({1: 1.0 + i, 2: 0.1}) for i, run in enumerate(runs)}
    results_pictures.draw_plot(table_of(*runs), done, tmp_path / "images" / "fd.png")
    lines = {line.get_label(): np.asarray(line.get_data()).tolist() for line in figures[0].axes[0].lines}
    assert lines.pop("real against real")[1] == [0.3, 0.3]
    assert lines == {"the teacher": [[1, 2], [1.5, 0.1]], "the other": [[1, 2], [3.0, 0.1]]}
    with Image.open(tmp_path / "images" / "fd.png") as image:
        assert np.asarray(image).std() > 0


def test_many_methods_can_be_told_apart(tmp_path):
    rows = [{"metric": "fd", "value": 1.0 + i, "nfe": n, "sampler": f"method {i}"} for i in range(16) for n in (1, 2)]
    figure = results_pictures.evaluation.metric_against_nfe(rows, "fd")
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 16
    figure.savefig(tmp_path / "fd.png")  # settles the layout
    legend, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.x0 > axes.x1
    assert axes.width > 2 * legend.width
