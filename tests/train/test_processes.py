"""Several processes as one run: on loopback, with processes that really die."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.children import end, free_port
from train.agreement import check_alike, gather_texts, on_first
from train.processes import Processes, find_processes, local_gpus, start_processes, wait_for
from train.refusal import Refused

ROOT = Path(__file__).parents[2]


def start(workdir: Path, out: Path, *options: str, devices: int, processes: int = 1) -> list[subprocess.Popen]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "tests.tiny", str(workdir), str(out), *options]
    address = f"--coordinator=127.0.0.1:{free_port()}"
    joined = [[address, f"--processes={processes}", f"--process_id={index}"] for index in range(processes)]
    return [
        subprocess.Popen(
            command + (own if processes > 1 else []),
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for own in joined
    ]


def finish(workdir: Path, out: Path, *options: str, devices: int, processes: int = 1) -> list[str]:
    found = end(start(workdir, out, *options, devices=devices, processes=processes))
    for code, output in found:
        assert code == 0, output
    return [output for _, output in found]


def leaves(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files]


def saved(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The state at the end of the uninterrupted run of 2 processes with 2 devices each."""
    folder = tmp_path_factory.mktemp("whole")
    told = finish(folder / "run", folder / "state.npz", devices=2, processes=2)
    assert [text.splitlines()[-1] for text in told] == ["finished at step 20"] * 2
    return folder / "state.npz"


@pytest.mark.slow
def test_two_processes_train_die_and_go_on_as_one_and_as_four_devices(whole, tmp_path):
    kill = ("--kill_at=13", "--after_save", "--victim=1")
    (first, output), (second, _) = end(start(tmp_path / "two", tmp_path / "no.npz", *kill, devices=2, processes=2))
    # The one that is left ends by itself, with an error that names the cause, within the heartbeat's time.
    assert second == -signal.SIGKILL
    assert first != 0, output
    assert "another task died" in output
    assert saved(tmp_path / "two") == [8]

    # Two processes add up gradients in another order than one, so these agree to rounding and not in every bit.
    finish(tmp_path / "alone", tmp_path / "alone.npz", devices=1)
    for devices, folder in ((4, "four"), (1, "one")):
        shutil.copytree(tmp_path / "two", tmp_path / folder)
        (told,) = finish(tmp_path / folder, tmp_path / f"{folder}.npz", devices=devices)
        assert "went on from step 8: 2 to 6 steps lost" in told
        assert told.endswith("finished at step 20\n")
        for other in (whole, tmp_path / "alone.npz"):
            for a, b in zip(leaves(tmp_path / f"{folder}.npz"), leaves(other), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_sigterm_to_one_of_two_saves_the_same_step_in_both_and_they_go_on_bit_for_bit(whole, tmp_path):
    stop = ("--kill_at=10", "--signal=SIGTERM", "--victim=1")
    told = finish(tmp_path / "run", tmp_path / "part.npz", *stop, devices=2, processes=2)
    # It comes before step 11 is taken; all know at the end of step 13 what was asked at that of step 11.
    assert [text.splitlines()[-1] for text in told] == ["interrupted at step 13"] * 2
    assert saved(tmp_path / "run") == [8, 13]
    rows = [json.loads(line) for line in (tmp_path / "run" / "starts.jsonl").read_text().splitlines()]
    assert [(row["processes"], row["devices"]) for row in rows] == [(2, 4)]  # one row: one process writes

    finish(tmp_path / "run", tmp_path / "rest.npz", devices=2, processes=2)
    for a, b in zip(leaves(tmp_path / "rest.npz"), leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- Who is there ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_set(monkeypatch):
    for name in (
        "JAX_COORDINATOR_ADDRESS",
        "JAX_NUM_PROCESSES",
        "JAX_PROCESS_ID",
        "SLURM_PROCID",
        "TPU_WORKER_HOSTNAMES",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "given", "distributed", "found"),
    [
        ({}, Processes(), None, None),
        ({}, Processes("a:1", 2, 1), None, Processes("a:1", 2, 1)),
        ({}, Processes("a:1", 2, 1), False, None),
        ({}, Processes(), True, Processes()),
        (
            {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            Processes(),
            None,
            Processes("b:2", 4, 3),
        ),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Processes(), None, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, Processes(), None, Processes()),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, Processes(), None, None),
        ({"TPU_WORKER_HOSTNAMES": "w-0,w-1"}, Processes(), None, Processes()),
    ],
)
def test_who_else_there_is_comes_from_flags_or_the_environment(
    monkeypatch, nothing_set, environment, given, distributed, found
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_processes(given, distributed=distributed) == found


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),  # alone on its node
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "8"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "CUDA_VISIBLE_DEVICES": "5"}, [0]),  # it sees one, as its first
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, None),  # JAX takes its own
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, None),  # no GPUs
        ({"SLURM_STEP_TASKS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": "0", "JAX_LOCAL_DEVICE_IDS": "0"}, None),
    ],
)
def test_a_process_alone_on_its_node_has_all_its_gpus(monkeypatch, nothing_set, environment, gpus):
    assert local_gpus() is None
    for name, value in (environment | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}).items():
        monkeypatch.setenv(name, value)
    assert local_gpus() == gpus


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Processes("a:1"), "missing: number, rank"),
        (Processes(None, 2, 0), "missing: coordinator"),
        (Processes("a:1", 2, 2), r"process_id is 2; of 2 processes it is 0 \.\. 1"),
    ],
)
def test_half_of_what_is_needed_is_refused(nothing_set, given, message):
    with pytest.raises(Refused, match=message):
        find_processes(given, distributed=None)


def test_a_coordinator_that_is_not_there_is_named_in_time():
    address = f"127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(Refused, match=rf"nothing answers at the coordinator's address {address} within 0\.5 s"):
        wait_for(address, seconds=0.5)
    assert time.monotonic() - start < 10
    with pytest.raises(Refused, match="the coordinator is HOST:PORT, got 'somewhere'"):
        wait_for("somewhere", seconds=0.5)


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Refused, match=rf"process 0 cannot be the coordinator at {address}: .*in use"):
            start_processes(Processes(address, 2, 0), timeout_seconds=60, heartbeat_seconds=20)


@pytest.mark.slow
def test_others_that_do_not_come_are_waited_for_no_longer_than_was_said():
    command = "from train.processes import *; start_processes(Processes('127.0.0.1:%d', 2, 0), %s)"
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", command % (port, "timeout_seconds=1, heartbeat_seconds=20")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"process 0 of 2: not all processes came to 127.0.0.1:{port} within 1 s" in done.stderr


# ---- What they must have in common -----------------------------------------------------------------------------------


def test_one_process_agrees_with_itself():
    assert gather_texts("alone") == ["alone"]
    check_alike({"batch_size": 2})


def test_what_the_first_refuses_all_refuse(monkeypatch):
    def refuse():
        raise OSError("no room")

    with pytest.raises(Refused, match="no room"):
        on_first(refuse)


def test_values_that_differ_are_named_with_their_processes(monkeypatch):
    others: list[dict[str, Any]] = [{"seed": 0, "losses/edm.py": "aa"}, {"seed": 0, "losses/edm.py": "bb"}, {"seed": 3}]
    monkeypatch.setattr("train.agreement.gather_texts", lambda text: [json.dumps(other) for other in others])
    with pytest.raises(Refused) as caught:
        check_alike(others[0])
    assert str(caught.value).splitlines() == [
        "the processes do not run the same:",
        "  losses/edm.py: 'aa' in process 0, 'bb' in process 1",
        "  losses/edm.py: 'aa' in process 0, 'absent' in process 2",
        "  seed: 0 in process 0, 3 in process 2",
    ]


@pytest.mark.slow
def test_two_processes_of_different_configs_refuse_to_start_and_both_say_why(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "main.py",
        "--config=configs/digits.py",
        f"--workdir={tmp_path / 'run'}",
        "--processes=2",
    ]
    both = [
        subprocess.Popen(
            [*command, f"--coordinator={address}", f"--process_id={index}", f"--config.width={width}"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index, width in enumerate((16, 32))
    ]
    for code, output in end(both):
        assert code == 1, output
        assert "error: the processes do not run the same:\n  --config.width: 16 in process 0, 32 in process 1" in output
    assert not (tmp_path / "run").exists()


def test_rows_of_a_process_are_those_on_its_devices():
    whole = next(tiny.batches(3, batch_size=8, dim=2))["image"]
    own = next(tiny.batches(3, [1, 4], batch_size=8, dim=2))["image"]
    np.testing.assert_array_equal(own, whole[[1, 4]])
