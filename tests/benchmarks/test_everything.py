"""One command for all benchmarks, with stand-ins for them."""

import json
import subprocess
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from benchmarks import everything


@pytest.fixture
def called(monkeypatch):
    """Commands that were run; `broken` fails, the others write a row."""
    commands = []

    def run(command, **_):
        commands.append(command)
        name, out = command[2].removeprefix("benchmarks."), command[-1]
        if name == "broken":
            return SimpleNamespace(returncode=1, stdout="", stderr="no such chip")
        with open(out, "w") as file:
            json.dump({"rows": [name]}, file)
        return SimpleNamespace(returncode=0, stdout="a table", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_all_are_there_at_both_sizes():
    assert everything.SMALL.keys() == everything.PUBLISHED.keys()
    assert all(find_spec(f"benchmarks.{name}") for name in everything.SMALL)


def test_what_each_wrote_comes_into_one_file(called, tmp_path):
    results = everything.run({"first": ("--depth", "3"), "data_rate": ()}, tmp_path, data_dir="here")
    assert results == json.loads((tmp_path / "benchmarks.json").read_text())
    assert results["first"]["rows"] == ["first"]
    assert results["first"]["arguments"] == ["--depth", "3"]
    assert "here" in called[1]
    assert "here" not in called[0]
    assert (tmp_path / "first.txt").read_text() == "a table"


def test_one_that_fails_stops_no_other(called, tmp_path):
    (tmp_path / "broken.json").write_text('{"rows": ["of another day"]}')
    results = everything.run({"broken": (), "second": ()}, tmp_path)
    assert results["broken"]["error"] == "no such chip"
    assert "rows" not in results["broken"]
    assert results["second"]["rows"] == ["second"]


def test_the_command_says_so_by_its_exit_code(called, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["everything", "--only", "step_cost", "--out", str(tmp_path)])
    assert everything.main() == 0
    monkeypatch.setattr(everything, "SMALL", {**everything.SMALL, "broken": ()})
    monkeypatch.setattr("sys.argv", ["everything", "--only", "broken", "--out", str(tmp_path)])
    assert everything.main() == 1
