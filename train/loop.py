"""The training loop, to be read from top to bottom."""

import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from . import checkpoint, log
from .checkpoint import Checkpoints
from .experiment import Experiment, validate
from .progress import progress
from .sharding import batch_sharding, make_mesh, replicated, state_shardings
from .state import State, init_state, place_state
from .step import make_step
from .workdir import check_fingerprint

STEPS_IN_FLIGHT = 2  # scalars are read this many steps late, so that the device never waits for the host


class NonFiniteError(FloatingPointError):
    """The loss, the gradient or the parameters of a step were not finite; the last checkpoint is from before it."""


class Finished(NamedTuple):
    """What a call of `fit` left behind.

    Attributes:
        state: the state after the last step taken.
        interrupted: True if SIGTERM stopped the run before its last step; the same command goes on.
        steps_taken: steps of this call, 0 when the run had finished before.
    """

    state: State
    interrupted: bool
    steps_taken: int


def fit(experiment: Experiment, workdir: Path) -> Finished:
    """Train until `experiment.steps`, going on from the newest checkpoint in the folder if there is one.

    A resumed run equals the uninterrupted one bit for bit on the same devices: keys and data are functions of
    (seed, step), so the state is all there is to restore.

    Raises:
        NonFiniteError: at the first step whose loss, gradient or parameters are not finite, with all its loss terms.
        ValueError: for a batch that the devices do not divide, or a checkpoint of other shapes or data.
    """
    validate(experiment)
    mesh = make_mesh(fsdp=experiment.fsdp)
    keep_snapshots = (
        checkpoint.open_checkpoints(workdir / "snapshots", keep=None) if experiment.snapshot_every else nullcontext()
    )
    # Leaving this block waits for saves in flight: nothing counts as done before the last one has succeeded.
    with checkpoint.open_checkpoints(workdir / "checkpoints") as checkpoints, keep_snapshots as snapshots:
        state = newest_state(experiment, mesh, checkpoints)
        first_step = int(state.step)
        state, interrupted = train_from(state, experiment, mesh, workdir, checkpoints, snapshots)
    return Finished(state, interrupted, steps_taken=int(state.step) - first_step)


def newest_state(experiment: Experiment, mesh: Mesh, checkpoints: Checkpoints) -> State:
    """The newest checkpoint on this mesh, or the initial state if there is none."""
    newest = checkpoints.manager.latest_step()
    if newest is None:
        return place_state(experiment, mesh)
    abstract = jax.eval_shape(lambda: init_state(experiment))
    shardings = state_shardings(mesh, abstract)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    state, facts = checkpoint.restore(checkpoints, like, step=newest)
    check_fingerprint(facts["data"], experiment.fingerprint)
    # Arrays read from disk cannot be donated; a jitted copy can.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)(state)


def train_from(
    state: State,
    experiment: Experiment,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    snapshots: Checkpoints | None,
) -> tuple[State, bool]:
    """The loop itself: the state after it, and whether SIGTERM ended it."""
    # ---- Step and data -------------------------------------------------------------------------------------------
    step = first_step = int(state.step)
    step_fn = make_step(experiment, mesh)
    batches = experiment.batches(first_step)
    spread = batch_sharding(mesh)
    frozen = jax.device_put(experiment.frozen(), replicated(mesh))
    facts = {"data": experiment.fingerprint}
    if experiment.steps == 0 and checkpoints.manager.latest_step() is None:
        checkpoint.save(checkpoints, 0, state, facts)  # a network as it begins can be judged too
    in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
    window: list[dict[str, float]] = []

    with (
        stop_on_sigterm() as stop,
        log.open_log(workdir, step=first_step) as writer,
        progress(first_step=first_step, steps=experiment.steps) as report,
    ):
        window_start = time.monotonic()
        stopping = False
        while step < experiment.steps and not stopping:
            # ---- One step ----------------------------------------------------------------------------------------
            batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(spread, x), next(batches))
            state, scalars = step_fn(state, batch, frozen)
            step += 1
            in_flight.append((step, scalars))

            # Asked once a step: a request that comes while this step is written is answered by the next one.
            stopping = stop.requested
            last = step == experiment.steps or stopping
            save_now = last or step % experiment.checkpoint_every == 0
            snapshot_now = experiment.snapshot_every and (last or step % experiment.snapshot_every == 0)
            run_now = [p for p in experiment.periodic if not stopping and (last or step % p.every == 0)]
            log_now = last or step % experiment.log_every == 0

            # ---- Is it finite? Whatever outlives a step is written only after that is known -----------------------
            settle = bool(save_now or snapshot_now or run_now or log_now)
            while len(in_flight) > (0 if settle else STEPS_IN_FLIGHT):
                window.append(finite(*in_flight.popleft()))

            # ---- Write -------------------------------------------------------------------------------------------
            if log_now:
                means = {name: float(np.mean([row[name] for row in window])) for name in window[0]}
                means["images_per_second"] = len(window) * experiment.batch_size / (time.monotonic() - window_start)
                log.write(writer, step, means)
                report(step, means["loss"], means["images_per_second"])
            if save_now:
                checkpoint.save(checkpoints, step, state, facts)
            if snapshots is not None and snapshot_now:
                checkpoint.save(snapshots, step, {"averages": state.averages}, {})
            for periodic in run_now:
                extra = periodic.run(workdir, step, {"params": state.params, **state.averages})
                if extra:
                    log.write(writer, step, extra)
            if log_now:
                window, window_start = [], time.monotonic()
    return state, step < experiment.steps


def finite(step: int, scalars: dict[str, jax.Array]) -> dict[str, float]:
    """The scalars of a step on the host.

    Raises:
        NonFiniteError: if the loss, the gradient or the parameters are not finite.
    """
    values = {name: float(value) for name, value in jax.device_get(scalars).items()}
    if not np.isfinite([values["loss"], values["gradient_norm"], values["parameter_norm"]]).all():
        terms = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
        raise NonFiniteError(f"step {step} is not finite: {terms}. The last checkpoint is from before this step.")
    return values


class Stop:
    """Whether the process was asked to stop."""

    requested = False


@contextmanager
def stop_on_sigterm() -> Iterator[Stop]:
    """Turn the first SIGTERM into a request that the loop answers with a checkpoint; a second one kills as usual."""
    stop = Stop()

    def handler(number: int, frame: object) -> None:
        stop.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
