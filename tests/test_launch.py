"""The launch scripts with stand-ins for the programs of clouds and clusters: what these are asked for."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
SLICE = {"NAME": "run1", "ZONE": "zone-a", "PROJECT": "mine"}


@pytest.fixture
def programs(tmp_path):
    """Environment with stand-ins that note how they were called, a line each, in the returned file."""
    calls = tmp_path / "calls"
    calls.touch()
    bodies = {
        "gcloud": 'case "$*" in *describe*) echo ACTIVE ;; esac',
        "xpk": ":",
        "scontrol": ":",
        "scancel": f"touch {tmp_path}/stop",
        "srun": f'[ -z "$BRIEF" ] || exit "$BRIEF"\n'
        f"for i in $(seq 200); do [ -e {tmp_path}/stop ] && exit; sleep 0.05; done",
    }
    for name, body in bodies.items():
        program = tmp_path / name
        program.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "{name} $*" >> {calls}\n{body}\n')
        program.chmod(0o755)
    return os.environ | SLICE | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POLL_SECONDS": "0"}, calls


def run(name: str, *arguments: str, env: dict[str, str], code: int = 0) -> str:
    done = subprocess.run(
        ["bash", str(LAUNCH / name), *arguments], env=env, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_it_is_used(name, programs):
    env, calls = programs
    assert f"launch/{name}" in run(name, "--help", env=env, code=2)
    if name != "tpu_install.sh":  # which takes no arguments
        assert f"launch/{name}" in run(name, env=env, code=2)
    assert calls.read_text() == ""


@pytest.mark.parametrize("name", ["tpu_create.sh", "tpu_run.sh"])
def test_what_is_missing_is_named(name, programs):
    env, _ = programs
    assert "ZONE: zone, such as" in run(name, "v5e:2x4", env={k: v for k, v in env.items() if k != "ZONE"}, code=1)


def test_a_slice_is_asked_for_by_its_topology(programs):
    env, calls = programs
    assert "run1: ACTIVE" in run("tpu_create.sh", "v5p:4x4x4", "--spot", env=env)
    asked = calls.read_text().splitlines()[0]
    assert asked.startswith("gcloud compute tpus queued-resources create run1 --node-id run1 --project mine")
    assert "--type V5P --topology 4x4x4 --runtime-version v2-alpha-tpuv5 --spot" in asked
    assert "unknown chip v9" in run("tpu_create.sh", "v9:2x2", env=env, code=2)


def test_a_checkout_is_copied_to_every_worker_and_installed(programs):
    env, calls = programs
    run("tpu_install.sh", env=env)
    copied, installed = calls.read_text().split("gcloud ")[1:]
    assert "run1:fewstep.tar.gz --project mine --zone zone-a --worker=all" in copied
    assert "--worker=all" in installed
    assert "'.[train,data,eval,tpu]'" in installed.replace('"', "'")


def test_every_worker_runs_the_same_command_and_goes_on_after_an_end(programs):
    env, calls = programs
    run("tpu_run.sh", "start", "--config", "configs/digits.py", "--workdir", "/mnt/my runs/a", env=env)
    asked = calls.read_text()
    assert "--worker=all" in asked
    command = asked.partition("--command ")[2]
    # What the workers are told is a command of bash; let it run, with a stand-in for Python that fails once.
    home = calls.parent / "home"
    python = home / "fewstep" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\nprintf "%s|" "$@" >> ran\n[ -e once ] || { touch once; exit 3; }\n')
    python.chmod(0o755)
    at_once = env | {"AGAIN_SECONDS": "0"}
    subprocess.run(["bash", "-c", command], cwd=home, env=at_once, check=True, timeout=30)
    ran, expected = (
        home / "fewstep" / "ran",
        "main.py|--distributed|--interrupted_code=75|--config|configs/digits.py|--workdir|/mnt/my runs/a|",
    )
    end = time.monotonic() + 20
    while time.monotonic() < end and (not ran.exists() or ran.read_text() != 2 * expected):
        time.sleep(0.05)
    assert ran.read_text() == 2 * expected
    assert "exit 3, again" in (home / "fewstep" / "run.log").read_text()


def test_gke_gets_the_command_in_a_container(programs):
    env, calls = programs
    env |= {"CLUSTER": "c1", "IMAGE": "gcr.io/mine/fewstep", "TPU": "v5p-128", "NAME": "sit"}
    run("xpk.sh", "--config", "configs/digits.py", env=env)
    asked = calls.read_text()
    assert "workload create --cluster c1 --workload sit --docker-image gcr.io/mine/fewstep --tpu-type v5p-128" in asked
    assert "python main.py --distributed --interrupted_code=75 --config configs/digits.py" in asked


def test_slurm_saves_and_queues_again_when_it_is_told_to_stop(programs):
    env, calls = programs
    command = ["bash", str(LAUNCH / "slurm.sh"), "--config", "configs/digits.py"]
    job = subprocess.Popen(command, env=env | {"SLURM_JOB_ID": "42", "BRIEF": ""}, cwd=LAUNCH.parent)
    end = time.monotonic() + 20
    while time.monotonic() < end and "srun" not in calls.read_text():
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.wait(timeout=30)
    assert calls.read_text().splitlines() == [
        "srun --kill-on-bad-exit=1 .venv/bin/python main.py --interrupted_code=75 --config configs/digits.py",
        "scancel --signal=TERM 42.0",
        "scontrol requeue 42",
    ]


def test_slurm_hands_on_the_exit_code_and_does_not_repeat_what_fails(programs):
    env, calls = programs
    run("slurm.sh", "--config", "x", env=env | {"SLURM_JOB_ID": "42", "BRIEF": "7"}, code=7)
    assert "requeue" not in calls.read_text()


def test_slurm_queues_again_what_was_stopped_without_the_script(programs):
    """As in preemption, which signals the steps of a job alone."""
    env, calls = programs
    run("slurm.sh", "--config", "x", env=env | {"SLURM_JOB_ID": "42", "BRIEF": "75"}, code=75)
    assert calls.read_text().splitlines()[-1] == "scontrol requeue 42"
