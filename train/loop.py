"""The training loop, to be read from top to bottom."""

import time
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from . import checkpoint, log
from .agreement import on_first, stop_of_any
from .checkpoint import Checkpoints
from .experiment import Experiment, validate
from .feeding import global_batches
from .finite import check_finite, check_parameters, on_host
from .lock import hold
from .memory import explaining_memory
from .periodic import carry_out, due_at, left_at, tell_failures
from .progress import progress, say
from .restoring import Resume, starting_state
from .rollback import check_step, set_newer_aside
from .sharding import make_mesh, state_shardings
from .starts import report_start, steps_lost
from .state import State
from .step import make_step
from .stopping import stop_on_request
from .workdir import Record, changed_circumstances, claim, write_record

NOTHING_ALLOWED = Resume()
STEPS_IN_FLIGHT = 2  # scalars are read this many steps late, so that the device never waits for the host


class Finished(NamedTuple):
    """What a call of `fit` left behind.

    Attributes:
        state: the state after the last step taken.
        interrupted: True if SIGTERM stopped the run before its last step, or left something periodic of that undone;
            the same command goes on.
        steps_taken: steps of this call, 0 when the run had finished before.
    """

    state: State
    interrupted: bool
    steps_taken: int


def fit(
    experiment: Experiment, workdir: Path, *, record: Record | None = None, resume: Resume = NOTHING_ALLOWED
) -> Finished:
    """Train until `experiment.steps`, going on from the newest checkpoint in the folder if there is one.

    A resumed run equals the uninterrupted one bit for bit on the same devices: keys and data are functions of
    (seed, step), so the state is all there is to restore. Several processes call this together; the first one writes.

    Args:
        experiment: what to train.
        workdir: its folder; of several processes all must see the same one.
        record: which run this is; the folder must hold no other one, and keeps it in run.json.
        resume: what is allowed to differ from the run that the folder holds.

    Raises:
        Refused: another run has the folder, or it holds another config; a checkpoint that is damaged or of other
            shapes or data.
        NonFiniteError: at the first step whose loss, gradient or parameters are not finite, with all its loss terms.
        SaveError: a checkpoint could not be written.
        OutOfMemory: the step does not fit the devices.
        ValueError: for a batch that the devices do not divide.
    """
    validate(experiment)
    for periodic in experiment.periodic:
        periodic.ready()
    mesh = make_mesh(fsdp=experiment.fsdp, tensor=experiment.tensor)
    keep_snapshots = (
        checkpoint.open_checkpoints(workdir / "snapshots", keep=None) if experiment.snapshot_every else nullcontext()
    )
    with hold(workdir), explaining_memory(experiment):
        on_first(lambda: make_room(workdir, record, resume))
        # Leaving this block waits for saves in flight: nothing counts as done before the last one has succeeded.
        with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints:
            start = time.monotonic()
            state = starting_state(experiment, mesh, workdir, checkpoints, resume)
            restore_seconds = time.monotonic() - start
            first_step = int(state.step)
            if record is not None:
                on_first(lambda: write_record(workdir, record))
            facts = {"data": experiment.fingerprint, "code": record.code if record else ""}
            with keep_snapshots as snapshots:
                state, interrupted = train_from(
                    state, experiment, mesh, workdir, checkpoints, snapshots, facts, restore_seconds
                )
    return Finished(state, interrupted, steps_taken=int(state.step) - first_step)


def make_room(workdir: Path, record: Record | None, resume: Resume) -> None:
    """Check that the folder is this run's, and move aside what is newer than the step to go on from."""
    if record is not None:
        claim(workdir, record, change=resume.config_change)
        if changes := changed_circumstances(workdir, record):
            say(f"not as when the run began, so that it may differ in its last bits: {', '.join(changes)}")
    if resume.step is not None:
        check_step(workdir, resume.step)
        if aside := set_newer_aside(workdir, resume.step):
            say(f"what was newer than step {resume.step} is now in {aside}")


def train_from(
    state: State,
    experiment: Experiment,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    snapshots: Checkpoints | None,
    facts: dict[str, Any],
    restore_seconds: float,
) -> tuple[State, bool]:
    """The loop itself: the state after it, and whether a request to stop ended it."""
    # ---- Step and data -------------------------------------------------------------------------------------------
    step = first_step = int(state.step)
    step_fn = make_step(experiment, mesh)
    batches = global_batches(experiment, mesh, first_step)
    frozen = experiment.frozen()
    frozen = jax.device_put(frozen, state_shardings(mesh, frozen))
    asked_to_stop = stop_of_any(mesh, delay=STEPS_IN_FLIGHT)
    alone = jax.process_count() == 1
    lost = steps_lost(workdir, first_step)
    if experiment.steps == 0 and checkpoints.manager.latest_step() is None:
        checkpoint.save(checkpoints, 0, state, facts)  # a network as it begins can be judged too
    in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
    window: list[dict[str, float]] = []
    not_finite = 0
    left: list[int] = []

    def carry_out_now(index: int) -> None:
        carry_out(experiment, index, workdir, step, {"params": state.params, **state.averages}, write_log)

    with (
        stop_on_request() as stop,
        log.open_log(workdir, step=first_step) as write_log,
        progress(first_step=first_step, steps=experiment.steps) as report,
    ):
        for index in left_at(experiment, workdir, step):
            carry_out_now(index)  # a request to stop came before it, or broke into it
        window_start = time.monotonic()
        stopping = False
        while step < experiment.steps and not stopping:
            # ---- One step ----------------------------------------------------------------------------------------
            state, scalars = step_fn(state, next(batches), frozen)
            step += 1
            in_flight.append((step, scalars))
            if step == first_step + 1:
                jax.block_until_ready(scalars)
                report_start(
                    workdir,
                    step=first_step,
                    lost=lost,
                    restore_seconds=restore_seconds,
                    log_every=experiment.log_every,
                )
                stop.listen()  # until now, while the step was compiled, there was nothing to save

            # Asked once a step: a request that comes while this step is written is answered by the next one.
            stopping = asked_to_stop(stop.requested)
            last = step == experiment.steps or stopping
            save_now = last or step % experiment.checkpoint_every == 0
            snapshot_now = experiment.snapshot_every and (last or step % experiment.snapshot_every == 0)
            left = due_at(experiment, step, last=step == experiment.steps)
            log_now = last or step % experiment.log_every == 0

            # ---- Is it finite? Whatever outlives a step is written only after that is known -----------------------
            settle = bool(save_now or snapshot_now or left or log_now)
            while len(in_flight) > (0 if settle else STEPS_IN_FLIGHT):
                done, waiting = in_flight.popleft()
                values = on_host(waiting)
                not_finite = check_finite(done, values, before=not_finite, allowed=experiment.nonfinite_steps)
                if not not_finite:
                    window.append(values)
            if save_now or snapshot_now or left:
                check_parameters(step, state.params, before=not_finite)

            # ---- Write -------------------------------------------------------------------------------------------
            if log_now and window:
                means = {name: float(np.mean([row[name] for row in window])) for name in window[0]}
                means["images_per_second"] = len(window) * experiment.batch_size / (time.monotonic() - window_start)
                write_log(step, means)
                report(step, means["loss"], means["images_per_second"])
            if save_now:
                checkpoint.save(checkpoints, step, state, facts)
            if snapshots is not None and snapshot_now:
                checkpoint.save(snapshots, step, {"averages": state.averages}, {})
            while left and not stopping:
                # What one process leaves, the others would wait in for ever.
                with stop.leaving(alone):
                    if not (alone and stop.requested):
                        carry_out_now(left[0])
                        del left[0]
                if alone and stop.requested and left:
                    stopping = True
                    if not save_now:  # this step and no later one, as what is left can be made up from nothing else
                        checkpoint.save(checkpoints, step, state, facts)
            if log_now:
                window, window_start = [], time.monotonic()
    tell_failures(workdir)
    return state, step < experiment.steps or bool(left)
