"""What goes wrong while a run trains; each fault is really made."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import BRIEF, experiment
from train import Periodic, fit, read_log
from train.checkpoint import SaveError, steps_in
from train.finite import NonFiniteError
from train.memory import OutOfMemory

ROOT = Path(__file__).parents[2]


def params_of(state):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


# ---- Disk ------------------------------------------------------------------------------------------------------------


def full_disk(workdir: Path, *, after: int):
    """Train while files may have no more than 8 kB once a checkpoint is written, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(workdir, step, params):
        if step == after + 1:
            while not (workdir / "checkpoints" / str(after)).is_dir():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        return {}

    try:
        return fit(experiment(dim=64, **BRIEF, periodic=(Periodic(every=1, run=fill),)), workdir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What Orbax was still about to write ends with its event loop.
ORBAX_LEAVES = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@ORBAX_LEAVES
def test_a_full_disk_ends_the_run_with_path_and_free_bytes_and_leaves_older_steps_whole(tmp_path):
    with pytest.raises(
        SaveError, match=r"checkpoint 8 could not be written to .*, where [\d,]+ bytes are free; whole "
    ):
        full_disk(tmp_path, after=4)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    again = fit(experiment(dim=64, **BRIEF), tmp_path)
    assert again.steps_taken == 8


@ORBAX_LEAVES
def test_a_save_that_fails_after_the_last_step_is_an_error(tmp_path):
    with pytest.raises(SaveError, match=r"whole are steps \[4, 8\]"):
        full_disk(tmp_path, after=8)
    assert steps_in(tmp_path / "checkpoints") == [4, 8]


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def failing_at(*bad_steps: int):
    usual = experiment().objective

    def objective(params, batch, key, context):
        losses, metrics = usual(params, batch, key, context)
        bad = jnp.isin(context.step + 1, jnp.asarray(bad_steps))
        return losses * jnp.where(bad, jnp.nan, 1.0), metrics  # the gradient is not finite either

    return objective


def test_steps_that_are_left_out_are_counted_and_too_many_on_end_stop_the_run(tmp_path):
    forgiving = experiment(
        **BRIEF, optimizer=optax.apply_if_finite(optax.adam(1e-2), 10), nonfinite_steps=3, objective=failing_at(3, 6, 7)
    )
    state = fit(forgiving, tmp_path / "few").state
    assert int(state.opt_state.total_notfinite) == 3
    assert np.isfinite(params_of(state)).all()
    assert all(np.isfinite(row["loss"]) for row in read_log(tmp_path / "few"))
    with pytest.raises(NonFiniteError, match=r"step 8 is not finite, the last of 3 on end: .*loss nan.*t_least"):
        fit(forgiving._replace(objective=failing_at(6, 7, 8)), tmp_path / "many")


def test_too_little_memory_says_what_would_need_less(tmp_path):
    usual = experiment().objective

    def greedy(params, batch, key, context):
        losses, metrics = usual(params, batch, key, context)
        huge = jnp.cos(jnp.arange(2.0**17)[:, None] * jnp.arange(2.0**17) * losses[0])  # 64 GB
        return losses + jnp.cumsum(huge, axis=0)[0, 0], metrics

    with pytest.raises(OutOfMemory, match=r"batch_size 16 in 1 micro-batches .* accumulate=2 halves .* fsdp=2"):
        fit(experiment(**BRIEF, objective=greedy), tmp_path)
    assert steps_in(tmp_path / "checkpoints") == []


# ---- Being asked to stop ---------------------------------------------------------------------------------------------


def test_before_the_first_step_a_signal_ends_the_process_and_from_then_on_it_is_a_request(tmp_path):
    handlers = []
    tiny = experiment(**BRIEF)

    def looking(start, rows=None):
        for batch in tiny.batches(start, rows):
            handlers.append(signal.getsignal(signal.SIGTERM))
            yield batch

    fit(tiny._replace(batches=looking), tmp_path)
    assert handlers[0] == signal.SIG_DFL
    assert all(callable(handler) for handler in handlers[1:])


def test_a_request_at_a_step_that_is_saved_anyhow_saves_it_once(tmp_path):
    tiny = experiment(**BRIEF)

    def interrupting(start, rows=None):
        for step, batch in enumerate(tiny.batches(start, rows), start):
            if step == 7:
                os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C does the same
            yield batch

    stopped = fit(tiny._replace(batches=interrupting), tmp_path)
    assert (stopped.interrupted, int(stopped.state.step)) == (True, 8)
    # And once more at the same step: the checkpoint is there already.
    again = fit(tiny._replace(steps=8), tmp_path)
    assert (again.steps_taken, steps_in(tmp_path / "checkpoints")) == (0, [4, 8])


def killed(workdir: Path, *options: str) -> int:
    """The status of a run in a process of its own."""
    command = [sys.executable, "-m", "tests.tiny", str(workdir), str(workdir / "state.npz"), *options]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300).returncode


@pytest.mark.slow
def test_the_second_signal_ends_the_process_at_once_and_the_last_checkpoint_is_gone_on_from(tmp_path):
    status = killed(tmp_path, "--kill_at=13", "--after_save", "--signal=SIGTERM", "--twice")
    assert status == -signal.SIGTERM
    # Nothing of the request is done any more: one signal alone saves step 14.
    assert steps_in(tmp_path / "checkpoints") == [8]
    again = fit(experiment(), tmp_path)
    assert (again.steps_taken, int(again.state.step)) == (12, 20)


@pytest.mark.slow
def test_a_signal_while_the_step_is_compiled_ends_the_process_and_leaves_the_checkpoints(tmp_path):
    fit(experiment(steps=8), tmp_path)
    before = (tmp_path / "train.jsonl").read_text()
    assert killed(tmp_path, "--while_compiling") == -signal.SIGTERM
    assert steps_in(tmp_path / "checkpoints") == [8]
    assert (tmp_path / "train.jsonl").read_text() == before
    assert fit(experiment(), tmp_path).steps_taken == 12


# ---- Logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_whose_output_nobody_reads_goes_on(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tests.tiny", str(tmp_path / "run"), str(tmp_path / "state.npz")],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert (tmp_path / "state.npz").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore:unclosed file")
def test_a_log_that_breaks_is_warned_of_once_and_training_goes_on(tmp_path, monkeypatch):
    def broken(self, event):
        raise OSError("no space left")

    monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter.write_event", broken)
    with pytest.warns(UserWarning, match="TensorBoard's log cannot be written and is given up") as warned:
        finished = fit(experiment(**BRIEF | {"steps": 40}, log_every=1), tmp_path)
    assert finished.steps_taken == 40
    assert len([each for each in warned if "given up" in str(each.message)]) == 1
    assert [row["step"] for row in read_log(tmp_path)] == list(range(1, 41))


def test_a_log_that_cannot_be_opened_is_given_up(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(UserWarning, match="TensorBoard's log cannot be written and is given up"):
        assert fit(experiment(**BRIEF), tmp_path).steps_taken == 12


# ---- What it cost ----------------------------------------------------------------------------------------------------


def test_a_start_says_what_it_cost(run, capsys):
    capsys.readouterr()
    shutil.rmtree(run / "checkpoints" / "12")  # as if the process had been killed before it was written
    fit(experiment(**BRIEF), run)
    assert "went on from step 8: 4 to 8 steps lost, restored in" in capsys.readouterr().out
    first, second = (json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines())
    assert (first["step"], second["step"], second["steps_lost_at_least"]) == (0, 8, 4)
    assert 0 < second["restore_seconds"] < second["seconds_to_first_step"]
