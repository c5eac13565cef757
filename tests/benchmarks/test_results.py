"""The command line of the results, and all of it once with real runs."""

import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import results, results_training
from benchmarks.results_rows import Run, Table
from benchmarks.results_training import Job, Look
from tests.benchmarks.pretended_runs import OTHER, STUDENT, TEACHER, cells_of, table_of

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_chosen_runs_bring_their_teachers():
    runs = [TEACHER, STUDENT, OTHER]
    assert results.chosen(runs, ["student"]) == [TEACHER, STUDENT]
    assert results.chosen(runs, None) == runs
    with pytest.raises(ValueError, match="no run studnet; there are teacher, student, other"):
        results.chosen(runs, ["studnet"])


def test_time_left_follows_what_was_seen():
    def job(name: str, seconds_ago: float) -> Job:
        process: Any = None
        return Job(Run(name, name, "", "tiny"), process, (), time.monotonic() - seconds_ago, 0, 100)

    look = Look(jobs=((job("a", 40), 50),), done=0, waiting=(STUDENT, OTHER), failed={}, seconds={})
    assert results.seconds_left(look, 1) == pytest.approx(40 + 2 * 80, abs=1)
    assert results.seconds_left(look._replace(seconds={"teacher": 40.0}), 1) == pytest.approx(40 + 2 * 60, abs=1)
    assert results.seconds_left(look._replace(jobs=((job("a", 30), 0),)), 1) is None
    assert results.summary(look, 3, 1).startswith("0 of 3 done, 3 min left")


def test_a_table_without_its_data_is_left_out_with_a_word(tmp_path, capsys):
    table = Table("MNIST", "mnist", "", (), (), tfds="mnist")
    assert not results.has_data(table, str(tmp_path))
    assert f"MNIST: nothing is trained, mnist is not in {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--jobs", "0"], "jobs is 0; it must be between 1 and"), (["--only", "nobody"], "no run nobody; there are")],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, monkeypatch, arguments, message):
    page = tmp_path / "results.md"
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["results", "--runs", str(tmp_path / "runs"), "--out", str(page), *arguments])
    with pytest.raises(SystemExit, match=message):
        results.main()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_runs_become_a_page_and_are_not_run_again(tmp_path, monkeypatch, capsys):
    small = {"width": 16, "depth": 1, "judged_samples": 130, "snapshot_every": 10}
    runs = (
        Run("small", "ECT", "Geng et al. 2024", "digits", {**small, "steps": 30}),
        Run("untrained", "control", "", "digits", {**small, "steps": 1, "learning_rate": 0.0}, control=True),
    )
    page = tmp_path / "docs" / "results.md"
    monkeypatch.setattr(results, "TABLES", (table_of(*runs),))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["results", "--runs", str(tmp_path / "runs"), "--out", str(page), "--jobs", "1"])
    with pytest.raises(SystemExit) as ended:
        results.main()
    assert ended.value.code == 0, capsys.readouterr()
    text = page.read_text()
    assert "2 of 2 done" in capsys.readouterr().out
    for label in ("ECT", "control"):
        values = cells_of(text, label)[0][2:5]
        assert all(re.fullmatch(r"[\d.]+", value) for value in values), values
    assert float(cells_of(text, "ECT")[0][-1]) > 0
    for picture in re.findall(r"\]\((images/\S+)\)", text):
        with Image.open(page.parent / picture) as image:
            assert min(image.size) > 50
    assert {path.name for path in (page.parent / "images").iterdir()} == {"tiny_fd.png", "tiny_samples.png"}

    monkeypatch.setattr(results_training, "start", None)
    with pytest.raises(SystemExit) as ended:
        results.main()
    assert ended.value.code == 0
    assert page.read_text() == text
    assert Path(tmp_path / "runs" / "small.log").read_text().count("images/s") > 0
