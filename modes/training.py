"""Train, judge, draw."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import jax

import eval as evaluation
import train

from .given import FLAGS, build, required_config, required_workdir
from .pictures import draw_pictures
from .usage import ROOT, UsageError

CODE = ("main.py", "modes", "losses", "samplers", "models", "data", "train", "eval", "configs")


def run_train() -> None:
    """Train or go on training; then judge the samples, draw them, and print the table."""
    with train.unread_output():
        finished, experiment, workdir = trained_run()
        if finished.interrupted:
            train.say(f"stopped at step {int(finished.state.step)} on request; the same command goes on from there")
            sys.exit(FLAGS.interrupted_code)
        if finished.steps_taken == 0:
            train.say(f"{workdir} had finished at step {int(finished.state.step)}")
        report(experiment, workdir, int(finished.state.step))


def trained_run() -> tuple[train.Finished, train.Experiment, Path]:
    """Train, once everything that can be checked before has been."""
    workdir = required_workdir()
    config, config_file = required_config()
    code = train.code_hashes(ROOT, CODE)
    record = train.Record(config_file, config.to_dict(), train.code_hash(code))
    resume = train.Resume(
        step=FLAGS.restore_step,
        fallback=FLAGS.allow_fallback,
        data_change=FLAGS.allow_data_change,
        config_change=FLAGS.allow_config_change,
        reset=tuple(sorted(set(FLAGS.reset))),
    )
    try:
        values = {f"--config.{name}": value for name, value in record.config.items()}
        asked = {"--config": config_file, "--workdir": str(workdir), **resume._asdict()}
        train.check_alike({**asked, **values, **train.circumstances()["packages"], **code})
        experiment = build(config, config_file)
        train.validate(experiment)
        # Data, a teacher and the network of a judge are read and checked before anything is compiled or written, and
        # not held on to.
        batch = jax.tree.map(jax.typeof, next(experiment.batches(0)))
        frozen = jax.tree.map(jax.typeof, experiment.frozen())
        for periodic in experiment.periodic:
            periodic.ready()
        train.trace_loss(experiment, batch, frozen)
        if experiment.initial is not None:
            train.check_initial(experiment.initial(), jax.eval_shape(experiment.init, jax.random.key(0)))
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(str(error)) from error
    if FLAGS.profiler_port is not None:
        listen_for_profilers(FLAGS.profiler_port)
    try:
        return train.fit(experiment, workdir, record=record, resume=resume), experiment, workdir
    except (train.Refused, train.NonFiniteError, train.SaveError, train.OutOfMemory) as error:
        raise UsageError("\n".join([str(error), *getattr(error, "__notes__", [])])) from error


def listen_for_profilers(port: int) -> None:
    """Let a profiler ask this process for a trace while it trains.

    Raises:
        UsageError: something else listens there, of which JAX would only write a line.
    """
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UsageError(f"--profiler_port={port}: {error.strerror}; each process needs its own") from error
    jax.profiler.start_server(port)


def report(experiment: train.Experiment, workdir: Path, step: int) -> None:
    """Judge the samples of a finished run and draw them, unless that was done before; print the table."""
    metrics = workdir / "metrics.jsonl"
    rows = evaluation.read_rows(metrics) if metrics.exists() else []
    rows = json.loads(train.gather_texts(json.dumps(rows))[0])  # all processes go by what the first one sees
    rows = [row for row in rows if is_final(row, experiment, step)]
    if {row["sampler"] for row in rows} != {sampler.name for sampler in experiment.samplers}:
        n, average = experiment.judged_samples, experiment.judged_average
        try:
            rows = evaluation.evaluate(experiment, workdir, n=n, seed=0, average=average, batch_size=500)
        except (ValueError, OSError) as error:
            again = f"the run is whole; judge it by --workdir={workdir} --mode=eval"
            raise UsageError(f"{error}; {again}") from error
        draw_pictures(experiment, workdir)
    if train.is_first():
        evaluation.print_report(rows)
        print("pictures and numbers:", *(str(path) for path in sorted(workdir.glob("*.png"))), metrics)


def is_final(row: dict[str, Any], experiment: train.Experiment, step: int) -> bool:
    """Whether a row of metrics.jsonl is one that the end of this training writes."""
    expected = {"step": step, "average": experiment.judged_average, "seed": 0, "n": experiment.judged_samples}
    return all(row.get(name) == value for name, value in expected.items())
