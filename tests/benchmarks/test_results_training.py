"""The driver, on runs that a few lines of Python pretend to train."""

import signal
from dataclasses import replace

import pytest

from benchmarks import results_runs
from benchmarks.results_rows import Run
from benchmarks.results_runs import Place
from benchmarks.results_training import Job, Look
from tests.benchmarks.pretended_runs import OTHER, STUDENT, TEACHER, train

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_what_is_done_is_not_started_again(tmp_path):
    place = Place(tmp_path / "runs")
    assert train([TEACHER, OTHER], place) == (["teacher", "other"], {})
    assert train([TEACHER, OTHER], place) == ([], {})
    assert train([TEACHER, STUDENT, OTHER], place) == (["student"], {})
    (place.workdir(OTHER) / "metrics.jsonl").unlink()
    assert train([TEACHER, STUDENT, OTHER], place) == (["other"], {})


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


def test_what_a_run_makes_is_there_before_it_is_needed(tmp_path):
    maker = Run("maker", "maker", "", "tiny", makes={"store": ("--mode=encode",)})
    student = Run("student", "student", "", "tiny", teachers={"teacher_run": "store"})
    assert train([maker, student], Place(tmp_path)) == (["maker", "student"], {})
    assert (tmp_path / "store").is_dir()
    (tmp_path / "store").rmdir()
    again = replace(student, name="again")
    recorded = (tmp_path / "maker" / "driver.json").read_text()
    assert train([maker, student, again], Place(tmp_path)) == (["again"], {})
    assert (tmp_path / "store").is_dir()
    assert (tmp_path / "maker" / "driver.json").read_text() == recorded


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
