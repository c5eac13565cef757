"""The driver on runs that a few lines of Python pretend to train, the page on runs that only exist as numbers."""

import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import results, results_kept, results_page, results_pictures, results_runs, results_training
from benchmarks.results_kept import Kept
from benchmarks.results_rows import TABLES, Run, Store, Table, each_step_count, with_seeds
from benchmarks.results_runs import Finished, Place
from benchmarks.results_training import Job, Look

VALUES = {"steps": 10, "batch_size": 4, "seed": 0, "judged_samples": 20, "segments": 1, "teacher_run": ""}
TEACHER = Run("teacher", "the teacher", "A 2022", "tiny")
STUDENT = Run("student", "the student", "B 2023", "tiny", {"seed": 5}, {"teacher_run": "teacher"})
OTHER = Run("other", "the other", "C 2024", "tiny")

# Leaves what main.py leaves: a log of training, the record of the run, rows of one sampler.
PRETEND = """
import json, pathlib, sys, time
workdir, config, behaviour = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
workdir.mkdir(exist_ok=True)
with open(workdir.parent / "order.txt", "a") as file:
    print(workdir.name, file=file)
print("step 1/10")
if behaviour == "fail":
    sys.exit("error: learning_rate is -1\\n  it must be positive")
(workdir / "train.jsonl").write_text(json.dumps({"step": 10, "time": 0, "images_per_second": 20.0}) + "\\n")
record = {"config_file": "configs/tiny.py", "config": config, "device": "cpu", "device_count": 1}
(workdir / "run.json").write_text(json.dumps(record | {"packages": {"jax": "0.10.0"}}))
if behaviour == "wait":
    time.sleep(60)
if behaviour != "forget to judge":
    row = {"metric": "fd_pixels_20", "value": 0.5, "nfe": 1, "step": config["steps"], "seed": 0, "n": 20}
    row["sampler"] = "consistency 80"
    (workdir / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
"""


@pytest.fixture(autouse=True)
def tiny_config(monkeypatch):
    real = results_runs.plain_config
    for module in (results_runs, results_training):
        monkeypatch.setattr(module, "plain_config", lambda config: VALUES if config == "tiny" else real(config))
    monkeypatch.setattr(results_training, "SECONDS_BETWEEN_LOOKS", 0.01)


def train(runs, place, *, jobs=1, behaviour=None, show=lambda look: None):
    """Pretends to train what is missing; the names in the order in which they were started, and what failed."""

    def command(run, place):
        config = json.dumps({**VALUES, **{k: str(place.runs / v) for k, v in run.teachers.items()}, **run.values})
        return [sys.executable, "-c", PRETEND, str(place.workdir(run)), config, (behaviour or {}).get(run.name, "")]

    failed = results_training.train_missing(runs, place, jobs=jobs, show=show, command=command)
    order = place.runs / "order.txt"
    started = order.read_text().split() if order.exists() else []
    order.unlink(missing_ok=True)
    return started, failed


# ---- Training what is missing ----------------------------------------------------------------------------------------


def test_what_is_done_is_not_started_again(tmp_path):
    place = Place(tmp_path / "runs")
    assert train([TEACHER, OTHER], place) == (["teacher", "other"], {})
    assert train([TEACHER, OTHER], place) == ([], {})
    assert train([TEACHER, STUDENT, OTHER], place) == (["student"], {})
    (place.workdir(OTHER) / "metrics.jsonl").unlink()
    assert train([TEACHER, STUDENT, OTHER], place) == (["other"], {})


def test_a_run_of_another_config_is_not_done(tmp_path):
    place = Place(tmp_path / "runs")
    train([OTHER], place)
    assert results_runs.finished(OTHER, place) is not None
    assert results_runs.finished(Run("other", "the other", "", "tiny", {"steps": 20}), place) is None
    assert results_runs.finished(Run("other", "the other", "", "digits"), place) is None


def test_where_data_and_teachers_lie_is_not_what_a_run_is(tmp_path):
    train([TEACHER, STUDENT], Place(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert train([TEACHER, STUDENT], Place(tmp_path / "there", data_dir="elsewhere")) == ([], {})


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_teacher_is_done_before_its_student_begins(tmp_path, jobs):
    looks: list[Look] = []
    started, failed = train([TEACHER, STUDENT, OTHER], Place(tmp_path / "runs"), jobs=jobs, show=looks.append)
    assert (sorted(started), failed) == (["other", "student", "teacher"], {})
    assert started.index("teacher") < started.index("student")
    for look in looks:
        running = {job.run.name for job, _ in look.jobs}
        assert len(running) <= jobs
        assert not {"teacher", "student"} <= running
    assert max(len(look.jobs) for look in looks) == jobs
    assert looks[-1].done == 3


STORE = Store("pairs", "teacher", ("--mode=pairs", "--n=5"))
MAKE = "import pathlib, sys; print('made'); pathlib.Path(sys.argv[1]).mkdir(); open(sys.argv[2], 'a').write('pairs\\n')"


def with_stores(place, runs, *, jobs, make=MAKE):
    """Pretends to make a folder, once, before it pretends to train."""

    def prepare(run, place):
        folders = [place.runs / store.name for store in run.stores.values()]
        order = str(place.runs / "order.txt")
        return [[sys.executable, "-c", "" if f.exists() else make, str(f), order] for f in folders]

    def command(run, place):
        config = json.dumps(
            {**VALUES, **{name: str(place.runs / s.name) for name, s in run.stores.items()}, **run.values}
        )
        return [sys.executable, "-c", PRETEND, str(place.workdir(run)), config, ""]

    return results_training.train_missing(
        runs, place, jobs=jobs, show=lambda look: None, command=command, prepare=prepare
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_made_of_a_run_is_made_once_before_the_runs_that_need_it(tmp_path, monkeypatch, jobs):
    monkeypatch.setitem(VALUES, "pairs", "")
    needing = [Run(name, name, "", "tiny", stores={"pairs": STORE}) for name in ("first", "second")]
    place = Place(tmp_path / "runs")
    assert with_stores(place, [TEACHER, *needing], jobs=jobs) == {}
    order = (place.runs / "order.txt").read_text().split()
    assert order[:2] == ["teacher", "pairs"]
    assert sorted(order[2:]) == ["first", "second"]
    assert place.log(needing[0]).read_text().splitlines() == ["made", "step 1/10"]
    # Where the folder lies is not what the run is.
    assert all(results_runs.finished(run, place) for run in needing)


def test_a_folder_that_cannot_be_made_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(VALUES, "pairs", "")
    run, place = Run("first", "first", "", "tiny", stores={"pairs": STORE}), Place(tmp_path / "runs")
    failed = with_stores(place, [TEACHER, run, OTHER], jobs=1, make="import sys; sys.exit('error: no room')")
    assert failed == {"first": f"exit code 1, see {place.log(run)}: error: no room"}


def test_a_run_that_needs_a_folder_says_how_it_is_made(monkeypatch):
    monkeypatch.setitem(VALUES, "pairs", "")
    run = Run("first", "first", "", "tiny", teachers={"teacher_run": "teacher"}, stores={"pairs": STORE})
    results_runs.check([TEACHER, run])
    assert results.chosen([TEACHER, OTHER, run], ["first"]) == [TEACHER, run]
    lone = replace(run, teachers={})
    assert results.chosen([TEACHER, OTHER, lone], ["first"]) == [TEACHER, lone]
    with pytest.raises(ValueError, match="first: no run 'teacher' stands above it"):
        results_runs.check([lone, TEACHER])
    with pytest.raises(ValueError, match="has no value 'peers'"):
        results_runs.check([TEACHER, replace(run, stores={"peers": STORE})])
    page = results_page.section(table_of(TEACHER, run, replace(run, name="second")), {}, [])
    made = "python main.py --workdir runs/results/teacher --mode=pairs --n=5 --out=runs/results/pairs"
    assert page.count(made) == 1
    assert page.index(made) < page.index("--config.pairs=runs/results/pairs")


def test_a_failure_stops_its_students_alone_and_says_which_log_to_read(tmp_path):
    place = Place(tmp_path / "runs")
    started, failed = train([TEACHER, STUDENT, OTHER], place, behaviour={"teacher": "fail"})
    assert started == ["teacher", "other"]
    log = place.runs / "teacher.log"
    assert failed["teacher"] == f"exit code 1, see {log}: error: learning_rate is -1\n  it must be positive"
    assert failed["student"] == "not started, teacher failed"
    assert results_runs.finished(OTHER, place) is not None
    assert train([TEACHER, STUDENT, OTHER], place) == (["teacher", "student"], {})


def test_a_run_that_ends_before_it_is_judged_has_failed(tmp_path):
    place = Place(tmp_path / "runs")
    _, failed = train([OTHER], place, behaviour={"other": "forget to judge"})
    assert "ended without final rows" in failed["other"]
    assert results_runs.finished(OTHER, place) is None


def test_rows_of_earlier_steps_other_seeds_and_numbers_are_not_final(tmp_path):
    place = Place(tmp_path / "runs")
    train([OTHER], place)
    path = place.workdir(OTHER) / "metrics.jsonl"
    (final,) = [json.loads(line) for line in path.read_text().splitlines()]
    others = [final | {"value": 9.0} | other for other in ({"step": 5}, {"seed": 1}, {"n": 10}, {})]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*others[:3], final, others[3]]))
    done = results_runs.finished(OTHER, place)
    assert done is not None
    assert done.rows == [final]


def test_seconds_of_training_and_cores_are_those_of_the_run(tmp_path):
    place = Place(tmp_path / "runs")
    train([OTHER], place)
    done = results_runs.finished(OTHER, place)
    assert done is not None
    assert done.train_seconds == 10 * 4 / 20.0
    assert done.cores == os.cpu_count()
    # Found finished, as one trained by hand: nobody knows on how many cores.
    (place.workdir(OTHER) / results_runs.RECORD).unlink()
    assert train([OTHER], place)[0] == ["other"]
    again = results_runs.finished(OTHER, place)
    assert again is not None
    assert (again.train_seconds, again.cores) == (done.train_seconds, None)


def test_an_interrupt_ends_the_runs_that_are_in_progress(tmp_path):
    jobs: list[Job] = []

    def show(look: Look) -> None:
        for job, step in look.jobs:
            if step == 10:
                jobs.append(job)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([OTHER], Place(tmp_path / "runs"), behaviour={"other": "wait"}, show=show)
    assert jobs[0].process.returncode == -signal.SIGTERM


def test_rows_that_cannot_be_run_are_refused_before_anything_is():
    rows = [STUDENT, TEACHER, OTHER, Run("other", "again", "", "tiny", {"stepz": 3})]
    with pytest.raises(ValueError, match="cannot be run") as error:
        results_runs.check(rows)
    for problem in ("student: no run 'teacher' stands above it", "other: the name of two runs", "no value 'stepz'"):
        assert problem in str(error.value)


def test_chosen_runs_bring_their_teachers():
    runs = [TEACHER, STUDENT, OTHER]
    assert results.chosen(runs, ["student"]) == [TEACHER, STUDENT]
    assert results.chosen(runs, None) == runs
    with pytest.raises(ValueError, match="no run studnet; there are teacher, student, other"):
        results.chosen(runs, ["studnet"])


def test_time_left_follows_what_was_seen():
    def job(name: str, seconds_ago: float) -> Job:
        process: Any = None
        return Job(Run(name, name, "", "tiny"), process, time.monotonic() - seconds_ago, 0, 100)

    look = Look(jobs=((job("a", 40), 50),), done=0, waiting=(STUDENT, OTHER), failed={}, seconds={})
    assert results.seconds_left(look, 1) == pytest.approx(40 + 2 * 80, abs=1)
    assert results.seconds_left(look._replace(seconds={"teacher": 40.0}), 1) == pytest.approx(40 + 2 * 60, abs=1)
    assert results.seconds_left(look._replace(jobs=((job("a", 30), 0),)), 1) is None
    assert results.summary(look, 3, 1).startswith("0 of 3 done, 3 min left")


def test_the_rows_of_this_repository_name_each_run_and_its_teachers_once():
    for table in TABLES:
        names = [run.name for run in table.runs]
        assert len(set(names)) == len(names)
        for i, run in enumerate(table.runs):
            assert set(run.teachers.values()) <= set(names[:i]), run.name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_the_rows_of_this_repository_can_be_run(table):
    results_runs.check(table.runs)


# ---- The page --------------------------------------------------------------------------------------------------------


def done_with(
    fd: dict[int, float],
    *,
    sampler: str = "consistency",
    agreement: float = 0.9,
    seconds: float = 100.0,
    sha: str = "abc",
    **config,
):
    facts = {"seed": 0, "average": "power_0.05", "n": 20, "sampler": sampler}
    rows = []
    for nfe, value in fd.items():
        reference = {"reference": "digits/all", "reference_n": 1797, "reference_sha256": sha, "feature": "pixels"}
        rows.append({"metric": "fd_pixels_20", "value": value, "nfe": nfe, "real_floor": 0.3, **facts, **reference})
        label = {"metric": "label_agreement_20", "value": agreement, "held_out_accuracy": 0.98}
        rows.append({**label, "nfe": nfe, **facts})
    return Finished(rows, "configs/tiny.py", {**VALUES, **config}, seconds, 1, "cpu", "0.10.0")


def table_of(*runs: Run) -> Table:
    return Table("Tiny", "tiny", "Tiny runs.", ("steps", "batch_size"), runs)


def cells_of(page: str, label: str) -> list[list[str]]:
    """The cells of the lines of that label, one list for each table."""
    lines = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


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


# ---- All of it, once -------------------------------------------------------------------------------------------------


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
