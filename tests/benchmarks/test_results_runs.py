"""How a run is called, and when it is done."""

import json
import os

import pytest

from benchmarks import results_runs
from benchmarks.results_rows import Run
from benchmarks.results_runs import Place
from tests.benchmarks.pretended_runs import OTHER, STUDENT, TEACHER, train

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_a_run_of_another_config_is_not_done(tmp_path):
    place = Place(tmp_path / "runs")
    train([OTHER], place)
    assert results_runs.finished(OTHER, place) is not None
    assert results_runs.finished(Run("other", "the other", "", "tiny", {"steps": 20}), place) is None
    assert results_runs.finished(Run("other", "the other", "", "digits"), place) is None


def test_folders_are_made_by_mains_commands(tmp_path):
    run = Run("maker", "maker", "", "tiny", makes={"store": ("--mode=pairs", "--n=7")})
    training, making = results_runs.commands(run, Place(tmp_path))
    assert training == results_runs.arguments(run, Place(tmp_path))
    assert making[:3] == ["main.py", "--workdir", str(tmp_path / "maker")]
    assert making[3:] == ["--mode=pairs", "--n=7", f"--out={tmp_path / 'store'}"]


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


def test_rows_that_cannot_be_run_are_refused_before_anything_is():
    rows = [STUDENT, TEACHER, OTHER, Run("other", "again", "", "tiny", {"stepz": 3})]
    with pytest.raises(ValueError, match="cannot be run") as error:
        results_runs.check(rows)
    for problem in ("student: no run 'teacher' stands above it", "other: the name of two runs", "no value 'stepz'"):
        assert problem in str(error.value)
