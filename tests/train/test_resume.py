"""Exact resume, in processes that really die and on devices that really change."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(workdir: Path, out: Path, *options: str, devices: int = 1) -> int:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "tests.tiny", str(workdir), str(out), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300).returncode


def leaves(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files]


def losses(workdir: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (workdir / "train.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(folder / "run", folder / "state.npz") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill", [["--kill_at=13", "--after_save"], ["--kill_at=9"]], ids=["between saves", "perhaps during a save"]
)
def test_eight_steps_kill_twelve_steps_equal_twenty_bit_for_bit(uninterrupted, tmp_path, kill):
    assert run(tmp_path / "run", tmp_path / "state.npz", *kill) == -signal.SIGKILL
    assert not (tmp_path / "state.npz").exists()
    assert run(tmp_path / "run", tmp_path / "state.npz") == 0
    # Step, parameters, optimizer state and four averages; the data entered through all of them.
    resumed, whole = leaves(tmp_path / "state.npz"), leaves(uninterrupted / "state.npz")
    assert len(resumed) == len(whole) == 1 + 2 + 5 + 4 * 2
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses(tmp_path / "run")[20] == losses(uninterrupted / "run")[20]


@pytest.mark.slow
def test_one_two_and_eight_devices_train_alike_and_eight_resume_on_one(tmp_path):
    # 256 x 256 weights are large enough to be split over the fsdp axis.
    wide = ["--dim=256"]
    assert run(tmp_path / "one", tmp_path / "one.npz", *wide) == 0
    assert run(tmp_path / "two", tmp_path / "two.npz", *wide, devices=2) == 0
    assert run(tmp_path / "eight", tmp_path / "eight.npz", *wide, "--fsdp=4", devices=8) == 0
    assert run(tmp_path / "moved", tmp_path / "part.npz", *wide, "--fsdp=4", "--steps=8", devices=8) == 0
    assert run(tmp_path / "moved", tmp_path / "moved.npz", *wide) == 0
    one = losses(tmp_path / "one")
    # A row is the mean since the row before it, so the first one after a resume at step 8 covers fewer steps.
    for other, steps in (("two", (5, 10, 15, 20)), ("eight", (5, 10, 15, 20)), ("moved", (15, 20))):
        found = losses(tmp_path / other)
        for step in steps:
            assert found[step] == pytest.approx(one[step], rel=1e-6), (other, step)
