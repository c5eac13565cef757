import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from losses import denoising
from tests.tiny import experiment, net_of
from train import NonFiniteError, Periodic, checkpoint, fit, read_log, restore_average

EXPLODING = optax.GradientTransformation(
    lambda params: optax.EmptyState(),
    lambda gradient, state, params: (jax.tree.map(lambda g: jnp.full_like(g, jnp.inf), gradient), state),
)


def failing_at(*bad_steps):
    def objective(params, batch, key, context):
        losses, metrics = denoising(net_of(params), batch["image"], key)
        bad = jnp.isin(context.step + 1, jnp.array(bad_steps))
        return losses * jnp.where(bad, jnp.nan, 1.0), metrics | {"part": losses}

    return objective


def test_training_lowers_the_loss_and_logs_every_quarter(tmp_path):
    finished = fit(experiment(steps=200, log_every=20, checkpoint_every=100), tmp_path)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == list(range(20, 201, 20))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert {"loss", "loss_t1", "loss_t2", "loss_t3", "gradient_norm", "images_per_second"} <= rows[0].keys()
    assert finished.steps_taken == 200
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_finished_run_takes_no_step_and_changes_nothing(tmp_path):
    first = fit(experiment(), tmp_path)
    log = (tmp_path / "train.jsonl").read_text()
    again = fit(experiment(), tmp_path)
    assert again.steps_taken == 0
    assert not again.interrupted
    assert (tmp_path / "train.jsonl").read_text() == log
    for a, b in zip(jax.tree.leaves(first.state), jax.tree.leaves(again.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_zero_steps_leave_the_start_to_be_judged(tmp_path):
    for _ in range(2):
        finished = fit(experiment(steps=0), tmp_path)
        assert finished.steps_taken == 0
        params, step = restore_average(tmp_path, "params")
        assert step == 0
        for a, b in zip(jax.tree.leaves(finished.state.params), jax.tree.leaves(params), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "least"), [("steps", 0), ("log_every", 1), ("checkpoint_every", 1), ("snapshot_every", 0)]
)
def test_fewer_steps_than_there_can_be_are_refused_with_the_number(tmp_path, name, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
        fit(experiment(**{name: least - 1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad_step", [1, 11, 20])
def test_a_non_finite_loss_stops_with_its_step_and_terms_and_saves_nothing_after(tmp_path, bad_step):
    with pytest.raises(NonFiniteError, match=rf"step {bad_step} is not finite: .*loss nan.*part [\d.]+"):
        fit(experiment(objective=failing_at(bad_step)), tmp_path)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == [step for step in (8, 16) if step < bad_step]


@pytest.mark.parametrize(
    ("checkpoint_every", "message"),
    [
        (1, "the parameters after step 1 are not finite, parameter_norm inf: of a finite loss and gradient"),
        (8, r"step 2 is not finite: .*parameter_norm inf"),
    ],
)
def test_parameters_that_are_not_finite_stop_the_run_though_the_loss_was(tmp_path, checkpoint_every, message):
    """At once where they would be written, and else at the next step."""
    with pytest.raises(NonFiniteError, match=message):
        fit(experiment(optimizer=EXPLODING, checkpoint_every=checkpoint_every, snapshot_every=0), tmp_path)
    assert not any(path.name.isdigit() for path in (tmp_path / "checkpoints").iterdir())


def test_parameters_of_losses_that_were_not_finite_say_so(tmp_path):
    """Steps that are left out, of which there were one too many for the optimizer."""
    optimizer = optax.apply_if_finite(optax.adam(1e-2), 1)
    skipping = experiment(objective=failing_at(3, 4), optimizer=optimizer, nonfinite_steps=5, checkpoint_every=1)
    with pytest.raises(NonFiniteError, match=r"after step 4 are not finite.*: nor were loss and gradient of 2 steps"):
        fit(skipping, tmp_path)


@pytest.mark.parametrize("written", ["snapshot_every", "periodic"])
def test_nothing_is_made_of_parameters_that_are_not_finite(tmp_path, written):
    seen: list[int] = []

    def see(workdir, step, params):
        seen.append(step)
        return {}

    periodic = (Periodic(1, see),) if written == "periodic" else ()
    tiny = experiment(optimizer=EXPLODING, periodic=periodic, snapshot_every=int(written == "snapshot_every"))
    with pytest.raises(NonFiniteError, match="the parameters after step 1 are not finite"):
        fit(tiny, tmp_path)
    assert not seen
    assert not [path for path in (tmp_path / "snapshots").glob("*") if path.name.isdigit()]


def test_a_sigterm_that_comes_while_a_step_is_written_is_answered_by_the_next(tmp_path, monkeypatch):
    save = checkpoint.save

    def interrupted(checkpoints, step, *what):
        save(checkpoints, step, *what)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    stopped = fit(experiment(snapshot_every=0), tmp_path)
    assert (stopped.interrupted, int(stopped.state.step)) == (True, 9)
    assert (tmp_path / "checkpoints" / "9").is_dir()


def test_sigterm_saves_at_the_next_step_and_the_run_goes_on_exactly(tmp_path):
    whole = fit(experiment(), tmp_path / "whole")
    tiny = experiment()

    def interrupting(start, rows=None):
        for step, batch in enumerate(tiny.batches(start, rows), start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    stopped = fit(tiny._replace(batches=interrupting), tmp_path / "run")
    assert stopped.interrupted
    assert int(stopped.state.step) == 6
    resumed = fit(tiny, tmp_path / "run")
    assert resumed.steps_taken == 14
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_other_data_are_refused_on_resume(tmp_path):
    fit(experiment(steps=8), tmp_path)
    with pytest.raises(ValueError, match="seed: 0 in the checkpoint, 1 now"):
        fit(experiment(fingerprint={"name": "gaussian", "seed": 1}), tmp_path)


def test_a_batch_that_devices_and_micro_batches_do_not_divide_is_refused_at_once(tmp_path):
    with pytest.raises(
        ValueError, match=r"batch_size 16 is not divisible by 1 devices x 3 micro-batches; .*: 15 or 18"
    ):
        fit(experiment(accumulate=3), tmp_path)
    assert not any(tmp_path.iterdir())


def test_periodic_things_run_on_time_with_all_averages(tmp_path):
    seen = []

    def look(workdir, step, params):
        seen.append((step, sorted(params)))
        return {"looked": float(step)}

    fit(experiment(periodic=(Periodic(every=8, run=look),)), tmp_path)
    names = ["constant", "half_life", "long", "params", "short"]
    assert seen == [(8, names), (16, names), (20, names)]
    assert [row["looked"] for row in read_log(tmp_path) if "looked" in row] == [8, 16, 20]


def test_rows_beyond_the_last_checkpoint_are_dropped_on_resume(tmp_path):
    fit(experiment(steps=8), tmp_path)
    log = tmp_path / "train.jsonl"
    log.write_text(log.read_text() + json.dumps({"step": 10, "loss": 123.0}) + '\n{"step": 15, "lo')
    fit(experiment(), tmp_path)
    steps = [row["step"] for row in read_log(tmp_path)]
    assert steps == sorted(steps)
    assert 123.0 not in [row["loss"] for row in read_log(tmp_path)]
