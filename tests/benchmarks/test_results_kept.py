"""What stays of runs that are gone."""

import json
from dataclasses import replace

import pytest

from benchmarks import results, results_kept, results_page
from benchmarks.results_kept import Kept
from benchmarks.results_runs import Place
from tests.benchmarks.pretended_runs import OTHER, STUDENT, TEACHER, VALUES, cells_of, done_with, table_of, train

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_what_was_kept_of_a_run_stands_until_its_config_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "TABLES", (table_of(OTHER),))
    page, place = tmp_path / "docs" / "results.md", Place(tmp_path / "runs")
    train([OTHER], place)
    row = json.loads((place.workdir(OTHER) / "metrics.jsonl").read_text())
    facts = {"average": "ema", "reference": "digits/all", "reference_n": 1797, "feature": "pixels"}
    (place.workdir(OTHER) / "metrics.jsonl").write_text(json.dumps(row | facts) + "\n")

    def rebuild():
        results.write_page(page, "", [], place)
        return page.read_text()

    first = rebuild()
    assert cells_of(first, "the other")[0][2] == "0.5"
    place.runs.rename(tmp_path / "gone")
    assert rebuild() == first
    assert train([OTHER], place)[0] == ["other"]  # kept numbers are not a run
    place.runs.rename(tmp_path / "gone too")
    monkeypatch.setitem(VALUES, "batch_size", 5)
    assert cells_of(rebuild(), "the other")[0][2] == "not run"


def test_where_a_teacher_lay_is_not_kept(tmp_path):
    kept, done = Kept(tmp_path), done_with({1: 1.0}, teacher_run="/somewhere/teacher", seed=5)
    results_kept.keep(STUDENT, done, kept)
    assert "somewhere" not in kept.numbers(STUDENT).read_text()
    recalled = results_kept.recall(STUDENT, kept)
    assert recalled is not None
    assert recalled == done._replace(config={**done.config, "teacher_run": ""})


def test_a_section_stands_while_nothing_is_known_of_its_runs(tmp_path, monkeypatch):
    tables = tuple(replace(table_of(run), title=run.name) for run in (TEACHER, OTHER))
    monkeypatch.setattr(results, "TABLES", tables)
    page, kept = tmp_path / "results.md", Kept(tmp_path / "results")

    def rebuild():
        results.write_page(page, results_page.notes_of(page), [], Place(tmp_path / "runs"))
        return page.read_text()

    for run in (TEACHER, OTHER):
        results_kept.keep(run, done_with({1: 0.5}), kept)
    whole = rebuild()
    assert whole.count("0.5") >= 2
    for run in (TEACHER, OTHER):
        kept.numbers(run).rename(tmp_path / "gone")
        assert rebuild() == whole
        (tmp_path / "gone").rename(kept.numbers(run))
    for run in (TEACHER, OTHER):
        kept.numbers(run).unlink()
    assert rebuild() == whole
