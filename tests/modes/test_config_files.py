from pathlib import Path

import pytest

from configs import digits
from modes import config_files
from modes.usage import ROOT, UsageError


def refused(given, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError, match=message):
        config_files.check_file(given)


def test_runs_are_told_from_what_they_share(monkeypatch):
    runs = config_files.available()
    assert {"configs/digits.py", "configs/digits_lsd.py", "configs/imagenet64_multistep_distillation.py"} <= set(runs)
    assert not {"configs/glue.py", "configs/teachers.py", "configs/digits_students.py", "configs/imagenet.py"} & set(
        runs
    )
    monkeypatch.chdir(ROOT)
    for run in (
        *runs,
        "configs/imagenet256_sit.py:XL",
        "configs/imagenet256_sit.py:Q",
    ):  # sizes are the run's to refuse
        config_files.check_file(run)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("configs/digit.py", r"configs/digit\.py: no such run; did you mean configs/digits\.py\?"),
        ("digits", r"digits: no such run; did you mean configs/digits\.py\?"),
        ("my/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz.py", r"no such run; without --config there is a list"),
        ("configs/README.md", "no such run"),
        ("configs/digits.py:XL", "this run has one size alone; leave out :XL"),
        ("configs/glue.py", "is not a run: it has no get_config and build of its own"),
        ("configs/digits_students.py", "is not a run"),
    ],
)
def test_what_is_no_run_is_refused(given, message, monkeypatch):
    refused(given, message, monkeypatch)


def test_a_file_that_is_not_python_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("get_config = (")
    refused(str(tmp_path / "mine.py"), "is no Python file", monkeypatch)


def test_a_run_may_lie_anywhere(tmp_path):
    """In a folder whose name has .py in it, too."""
    folder = tmp_path / ".pyenv"
    folder.mkdir()
    (folder / "mine.py").write_text("from configs.digits import build, get_config\n")
    config_files.check_file(str(folder / "mine.py"))


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        ("grids", ((80.0,), (80, 0.5)), True),
        ("grids", [[80.0]], True),
        ("grids", (80,), False),
        ("grids", ("foo",), False),
        ("learning_rate", 1, True),
        ("learning_rate", -1.0, False),
        ("learning_rate", "fast", False),
        ("steps", True, False),
    ],
)
def test_values_are_of_the_kind_of_their_default(name, value, fine):
    config = digits.get_config()
    with config.ignore_type():
        config[name] = value
    path = Path(digits.__file__)
    if fine:
        config_files.check_types(config, path, "")
        return
    with pytest.raises(UsageError, match=f"--config.{name}="):
        config_files.check_types(config, path, "")
