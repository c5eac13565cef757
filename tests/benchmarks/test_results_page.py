"""The page, of runs that only exist as numbers."""

from dataclasses import replace

import pytest

from benchmarks import results, results_page
from benchmarks.results_rows import each_step_count, with_seeds
from benchmarks.results_runs import Place
from tests.benchmarks.pretended_runs import OTHER, STUDENT, TEACHER, cells_of, done_with, table_of

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_a_line_has_what_was_measured_and_not_run_where_nobody_did():
    table = table_of(TEACHER, STUDENT, OTHER)
    done = {"teacher": done_with({1: 45.53, 35: 0.0794}), "student": done_with({1: 0.2443, 2: 0.2086}, seconds=140.4)}
    page = results_page.section(table, done, [])
    assert cells_of(page, "the teacher")[0] == ["the teacher", "A 2022", "45.5", "", "", "", "0.0794 (35)", "100"]
    assert cells_of(page, "the student") == [
        ["the student", "B 2023", "0.244", "0.209", "", "", "", "140 + 100 teacher"],
        ["the student", "0.900", "0.900", "", "", ""],
    ]
    assert cells_of(page, "the other")[0] == ["the other", "C 2024", *["not run"] * 4, "", "not run"]
    assert "One half of the real images against the other has 0.300" in page
    assert "has 0.980 on real images" in page
    assert "Fréchet distance `fd_pixels_20`" in page
    assert "each run on 1 CPU core; jax 0.10.0" in page
    assert "--workdir runs/results/student --config.teacher_run=runs/results/teacher --config.seed=5" in page


def test_seeds_become_a_mean_and_a_range():
    runs = with_seeds(OTHER, 1, 2)
    assert [(run.name, dict(run.values)) for run in runs] == [
        *(("other", {}), ("other_seed1", {"seed": 1}), ("other_seed2", {"seed": 2}))
    ]
    done = {run.name: done_with({1: value}) for run, value in zip(runs, (0.2, 0.4, 0.3), strict=True)}
    (cells, _) = cells_of(results_page.section(table_of(*runs), done, []), "the other")
    assert cells[2] == "0.3 (0.2 to 0.4)"
    del done["other_seed1"]
    (cells, _) = cells_of(results_page.section(table_of(*runs), done, []), "the other")
    assert cells[2] == "0.25 (0.2 to 0.3), 2 of 3 seeds"


def test_a_model_for_each_number_of_steps_is_one_line():
    runs = each_step_count(OTHER, "segments", (1, 2, 4))
    # Each can be sampled in twice its steps too, which is not what it stands for.
    done = {"other_1": done_with({1: 3.0, 2: 2.5}), "other_2": done_with({2: 2.0, 4: 1.5})}
    (cells, _) = cells_of(results_page.section(table_of(*runs), done, []), "the other")
    assert cells[2:6] == ["3", "2", "not run", ""]


def test_a_run_has_a_line_for_each_view_of_its_samplers():
    run = replace(OTHER, views={", gamma 0": "gamma 0", ", gamma 1": "gamma 1", ", gamma 2": "gamma 2"})
    exact, noisy = done_with({1: 3.0, 2: 2.0}, sampler="gamma 0"), done_with({2: 9.0, 16: 8.0}, sampler="gamma 1")
    table, done = table_of(run), {"other": exact._replace(rows=exact.rows + noisy.rows)}
    page = results_page.section(table, done, [])
    assert cells_of(page, "the other, gamma 0")[0][2:7] == ["3", "2", "", "", ""]
    assert cells_of(page, "the other, gamma 1")[0][2:7] == ["", "9", "", "", "8 (16)"]
    assert cells_of(page, "the other, gamma 2")[0][2:7] == [""] * 5


def test_what_was_held_equal_is_read_from_the_runs_and_deviations_are_named():
    done = {"teacher": done_with({1: 1.0}), "student": done_with({1: 1.0}), "other": done_with({1: 1.0}, steps=3)}
    page = results_page.section(table_of(TEACHER, STUDENT, OTHER), done, [])
    assert "Equal in all runs: steps 10, batch_size 4; except steps 3 in `other`." in page


def test_runs_that_were_judged_differently_do_not_share_a_table():
    done = {"teacher": done_with({1: 1.0}), "other": done_with({1: 1.0}, sha="def")}
    with pytest.raises(ValueError, match="judged in more than one way"):
        results_page.section(table_of(TEACHER, OTHER), done, [])


def test_the_page_is_whole_before_any_run_is_done_and_keeps_what_was_written_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "TABLES", (table_of(TEACHER, STUDENT, OTHER),))
    page = tmp_path / "docs" / "results.md"

    def rebuild():
        results.write_page(page, results_page.notes_of(page), [], Place(tmp_path))
        return page.read_text()

    first = rebuild()
    assert "No run is done." in first
    assert first.count("not run") > 8
    page.write_text(first + "\n## What we found\n\nNothing | yet.\n")
    assert rebuild() == first + "\n## What we found\n\nNothing | yet.\n"
    page.write_text("# A page of somebody else\n")
    with pytest.raises(ValueError, match="no line"):
        results_page.notes_of(page)
