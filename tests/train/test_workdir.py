import json

import pytest

from train.workdir import Record, check_fingerprint, claim, write_record

CONFIG = {"lr": 1e-3, "grids": ((80.0,), (80.0, 0.8)), "steps": 10}


def test_a_new_folder_gets_a_record_of_the_run(tmp_path):
    write_record(tmp_path / "run", Record("configs/digits.py", CONFIG))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config_file"] == "configs/digits.py"
    assert record["config"] == {"lr": 1e-3, "grids": [[80.0], [80.0, 0.8]], "steps": 10}
    assert record["packages"]["jax"] != "absent"
    assert record["device_count"] >= 1


def test_the_same_run_may_come_back(tmp_path):
    for _ in range(2):
        claim(tmp_path, Record("configs/digits.py", CONFIG))
        write_record(tmp_path, Record("configs/digits.py", CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json"]


def test_another_run_is_refused_and_every_difference_listed(tmp_path):
    write_record(tmp_path, Record("configs/digits.py", CONFIG))
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    other = {"lr": 2e-3, "grids": CONFIG["grids"], "width": 64}
    with pytest.raises(ValueError, match="holds a run of another config") as caught:
        claim(tmp_path, Record("configs/other.py", other))
    for line in (
        "config file: configs/digits.py there, configs/other.py here",
        "lr: 0.001 there, 0.002 here",
        "steps: 10 there, 'absent' here",
        "width: 'absent' there, 64 here",
    ):
        assert line in str(caught.value)
    assert "grids" not in str(caught.value)


def test_a_folder_in_which_nothing_was_trained_may_be_claimed_again(tmp_path):
    write_record(tmp_path, Record("configs/digits.py", CONFIG | {"steps": -1}))
    claim(tmp_path, Record("configs/digits.py", CONFIG))
    write_record(tmp_path, Record("configs/digits.py", CONFIG))
    assert json.loads((tmp_path / "run.json").read_text())["config"]["steps"] == 10


def test_equal_fingerprints_pass_and_tuples_equal_lists():
    check_fingerprint({"shape": [8, 8, 1]}, {"shape": (8, 8, 1)})  # raises if they differ


def test_other_fingerprints_are_refused():
    with pytest.raises(ValueError, match="batch_size: 64 in the checkpoint, 128 now"):
        check_fingerprint({"batch_size": 64, "seed": 0}, {"batch_size": 128, "seed": 0})
