"""The rows of this repository."""

import pytest

from benchmarks import results_runs
from benchmarks.results_rows import TABLES

pytestmark = pytest.mark.usefixtures("tiny_config")


def test_the_rows_of_this_repository_name_each_run_and_its_teachers_once():
    for table in TABLES:
        names = [name for run in table.runs for name in run.names()]
        assert len(set(names)) == len(names)
        for i, run in enumerate(table.runs):
            above = {name for other in table.runs[:i] for name in other.names()}
            assert set(run.teachers.values()) <= above, run.name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_the_rows_of_this_repository_can_be_run(table):
    results_runs.check(table.runs)
