"""What is done every so many steps may fail, or be stopped, and the training goes on."""

import json
import os
import signal
import threading
from typing import Any

import jax
import pytest

from eval import append_rows, read_rows
from tests.tiny import BRIEF, experiment
from train import Periodic, checkpoint, fit, read_log
from train.periodic import carry_out


def kept(workdir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "periodic.jsonl").read_text().splitlines()]


# ---- Failing ---------------------------------------------------------------------------------------------------------


def test_evaluations_that_fail_are_told_and_counted_and_the_run_goes_on(tmp_path, capsys):
    def judge(workdir, step, params):
        value = float("nan") if step == 5 else float(step)
        metrics = workdir / "metrics.jsonl"
        append_rows(metrics / "in the way" if step == 10 else metrics, [{"value": value}])
        return {"judged": value}

    judged = experiment(**BRIEF, periodic=(Periodic(every=5, run=judge, name="the evaluation"),))
    (tmp_path / "metrics.jsonl").write_text("")
    done = fit(judged, tmp_path)
    assert (done.steps_taken, done.interrupted) == (12, False)
    assert [row["value"] for row in read_rows(tmp_path / "metrics.jsonl")] == [12]
    assert [row["judged"] for row in read_log(tmp_path) if "judged" in row] == [12]
    assert [(row["step"], row.get("failed", "").split(":")[0]) for row in kept(tmp_path)] == [
        (5, "ValueError"),
        (10, "FileExistsError"),
        (12, ""),
    ]
    told = capsys.readouterr().out
    assert "step 5: the evaluation failed and is left out, training goes on: ValueError: Out of range float" in told
    assert "2 of 3 evaluations and the like have failed, the last one the evaluation at step 10: FileExists" in told

    assert fit(judged, tmp_path).steps_taken == 0
    assert len(kept(tmp_path)) == 3  # the end is not judged again, nor is what failed tried again
    assert "2 of 3 evaluations and the like have failed" in capsys.readouterr().out


def test_an_error_of_the_program_ends_the_run_and_of_several_processes_any_does(tmp_path, monkeypatch):
    def wrong(error):
        def run(workdir, step, params):
            raise error

        return experiment(**BRIEF, periodic=(Periodic(every=5, run=run),))

    with pytest.raises(TypeError, match="misspelt"):
        fit(wrong(TypeError("misspelt")), tmp_path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="not finite"):
        carry_out(wrong(ValueError("not finite")), 0, tmp_path, 5, {}, lambda step, scalars: None)


# ---- Being stopped ---------------------------------------------------------------------------------------------------


def stopped_by(when: str, at: int, seen: list[tuple[int, float]], monkeypatch) -> Any:
    """A run that is asked to stop around the evaluation of a step, and what its evaluations were of."""
    tiny, save = experiment(**BRIEF), checkpoint.save

    def judge(workdir, step, params):
        if when == "while it is judged" and step == at:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        seen.append((step, float(params["params"]["weight"].sum())))
        return {}

    def batches(start, rows=None):
        for step, batch in enumerate(tiny.batches(start, rows), start):
            if when == "before it is taken" and step == at - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    def saving(checkpoints, step, *what):
        save(checkpoints, step, *what)
        if when == "while it is saved" and step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", saving)

    def draw(workdir, step, params):
        seen.append((-step, 0.0))
        return {}

    return tiny._replace(batches=batches, periodic=(Periodic(every=5, run=draw), Periodic(every=3, run=judge)))


@pytest.mark.parametrize(
    ("when", "at"),
    [
        ("before it is taken", 3),
        ("while it is judged", 3),
        ("while it is judged", 12),
        ("while it is saved", 12),
    ],
)
def test_an_evaluation_that_a_stop_has_left_is_made_up_when_the_run_goes_on(finished, tmp_path, monkeypatch, when, at):
    whole: list[tuple[int, float]] = []
    seen: list[tuple[int, float]] = []
    fit(stopped_by("never", at, whole, monkeypatch), tmp_path / "whole")
    assert [step for step, _ in whole] == [3, -5, 6, 9, -10, -12, 12]

    stopped = fit(stopped_by(when, at, seen, monkeypatch), tmp_path / "run")
    assert (stopped.interrupted, int(stopped.state.step)) == (True, at)
    assert at not in [step for step, _ in seen]
    again = fit(stopped_by("never", at, seen, monkeypatch), tmp_path / "run")
    assert (again.interrupted, again.steps_taken) == (False, 12 - at)
    assert seen == whole  # each once, of the same weights
    fit(stopped_by("never", at, seen, monkeypatch), tmp_path / "run")
    assert seen == whole
    ours, plain = (read_log(folder)[-1] for folder in (tmp_path / "run", finished))
    assert (ours["step"], ours["loss"]) == (plain["step"], plain["loss"])
