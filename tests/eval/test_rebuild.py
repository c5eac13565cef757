import json
from typing import Any

import pytest

from eval.rebuild import load_experiment, load_module, read_run

CONFIG_FILE = """
from types import SimpleNamespace

def build(config):
    names = ("samplers", "num_classes", "judged_average", "judged_samples", "restore", "judge")
    return SimpleNamespace(**dict.fromkeys(names), width=config.network.width, seed=config.seed)
"""


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG_FILE)
    return path


@pytest.fixture
def record(tmp_path, config_file):
    path = tmp_path / "run" / "run.json"
    path.parent.mkdir()
    values = {"config_file": str(config_file), "config": {"network": {"width": 8}, "seed": 1}, "device": "cpu"}
    path.write_text(json.dumps(values))
    return path


def test_build_gets_the_values_of_the_run(record):
    experiment: Any = load_experiment(record.parent)
    assert (experiment.width, experiment.seed) == (8, 1)


def test_values_that_the_config_got_later_are_todays_and_told(record, config_file, capsys):
    values = 'ConfigDict({"seed": 0, "width": 3, "shape": (1, 2)})'
    config_file.write_text(f"from ml_collections import ConfigDict\nget_config = lambda: {values}\n" + CONFIG_FILE)
    for _ in range(2):
        _, config = read_run(record.parent)
        assert (config.seed, config.width, config.shape, config.network.width) == (1, 3, (1, 2), 8)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"{record.parent} is a run of earlier code; taken as today: shape=(1, 2), width=3"]


def test_a_relative_config_file_is_sought_in_the_repository(record):
    record.write_text(json.dumps({"config_file": "configs/absent.py", "config": {}}))
    with pytest.raises(FileNotFoundError, match=r"configs/absent\.py: no such config file") as error:
        load_experiment(record.parent)
    assert str(error.value).startswith("/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"config": {', r"run\.json is not JSON"),
        ('{"config": {}}', r"run\.json lacks config_file; it has \['config'\]"),
        ("{}", "lacks config_file and config"),
    ],
)
def test_a_damaged_record(record, text, message):
    record.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_experiment(record.parent)


def test_a_missing_folder_or_record(record, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        load_experiment(tmp_path / "absent")
    record.unlink()
    with pytest.raises(FileNotFoundError, match=r"run\.json is missing"):
        load_experiment(record.parent)


def test_files_that_are_no_config(record, config_file, tmp_path):
    config_file.write_text("")
    with pytest.raises(ValueError, match=r"config\.py has no build"):
        load_experiment(record.parent)
    (tmp_path / "config.txt").write_text("")
    with pytest.raises(ValueError, match="not a Python file"):
        load_module(tmp_path / "config.txt")
