"""A run small enough for tests: an affine denoiser of Gaussian vectors, with every part of the trainer in use.

As a program it trains in a process of its own, which tests then kill, or give other devices:

    python -m tests.tiny WORKDIR STATE.npz [--steps=20] [--dim=16] [--fsdp=1] [--kill_at=STEP] [--after_save]
        [--signal=SIGTERM] [--twice] [--while_compiling]
        [--coordinator=HOST:PORT --processes=N --process_id=I [--victim=I]]
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from losses import denoising
from train import Experiment, Processes, Sampler, averages, find_processes, fit, start_processes, unread_output

DIM = 16
HEARTBEAT_SECONDS = 20

# Changes of `experiment` that keep of it what a checkpoint needs.
BRIEF: dict[str, Any] = {
    "snapshot_every": 0,
    "steps": 12,
    "checkpoint_every": 4,
    "averages": {},
    "judged_average": "params",
}


def batches(
    start: int, rows: Sequence[int] | None = None, *, batch_size: int, dim: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batch k is a function of k."""
    step, own = start, slice(None) if rows is None else list(rows)
    while True:
        whole = np.random.default_rng([7, step]).normal(0.3, 0.5, (batch_size, dim)).astype(np.float32)
        yield {"image": whole[own]}
        step += 1


def init(key: jax.Array, *, dim: int) -> dict[str, jax.Array]:
    return {"weight": 0.1 * jax.random.normal(key, (dim, dim)), "bias": jnp.zeros(dim)}


def net_of(params: dict[str, jax.Array]) -> Any:
    return lambda x, t: x @ params["weight"] / (1 + t[:, None] ** 2) + params["bias"]


def objective(params, batch, key, context):
    return denoising(net_of(params), batch["image"], key)


def experiment(*, dim: int = DIM, batch_size: int = 16, **changes: Any) -> Experiment:
    """The run, with any field of it replaced."""
    base = Experiment(
        init=partial(init, dim=dim),
        objective=objective,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
        averages={
            "constant": partial(averages.constant, decay=0.9),
            "half_life": partial(averages.half_life, images=64, batch_size=batch_size),
            "short": partial(averages.power, sigma_rel=0.05),
            "long": partial(averages.power, sigma_rel=0.10),
        },
        batches=partial(batches, batch_size=batch_size, dim=dim),
        fingerprint={"name": "gaussian", "seed": 0},
        prepare=lambda key, batch: batch,
        samplers=(Sampler("one", 1, lambda params, keys, labels: jnp.zeros((len(labels), dim))),),
        judge=lambda batches: [],
        judged_average="constant",
        judged_samples=4,
        batch_size=batch_size,
        steps=20,
        log_every=5,
        checkpoint_every=8,
        snapshot_every=4,
    )
    return base._replace(**changes)


def deadly(batches: Any, *, kill_at: int, workdir: Path, after_save: bool, by: signal.Signals, times: int = 1) -> Any:
    """The same batches, but asking for number `kill_at` kills the process, if told so once step 8 is on disk."""

    def until_death(start: int, rows: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        for step, batch in enumerate(batches(start, rows), start):
            if step == kill_at:
                while after_save and not (workdir / "checkpoints" / "8").is_dir():
                    time.sleep(0.01)
                for _ in range(times):
                    os.kill(os.getpid(), by)
            yield batch

    return until_death


def deadly_to_compile(params, batch, key, context):
    """The objective, which is called where the step is compiled and nowhere else."""
    os.kill(os.getpid(), signal.SIGTERM)
    return objective(params, batch, key, context)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--kill_at", type=int)
    parser.add_argument("--after_save", action="store_true")
    parser.add_argument("--signal", type=lambda name: signal.Signals[name], default=signal.SIGKILL)
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--while_compiling", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--victim", type=int, default=0)
    given = parser.parse_args()
    if found := find_processes(Processes(given.coordinator, given.processes, given.process_id), distributed=None):
        start_processes(found, timeout_seconds=100, heartbeat_seconds=HEARTBEAT_SECONDS)

    run = experiment(dim=given.dim, steps=given.steps, fsdp=given.fsdp)
    if given.kill_at is not None and jax.process_index() == given.victim:
        lethal = deadly(
            run.batches,
            kill_at=given.kill_at,
            workdir=given.workdir,
            after_save=given.after_save,
            by=given.signal,
            times=1 + given.twice,
        )
        run = run._replace(batches=lethal)
    if given.while_compiling:
        run = run._replace(objective=deadly_to_compile)
    given.workdir.mkdir(parents=True, exist_ok=True)
    with unread_output():
        finished = fit(run, given.workdir)
        sys.stdout.write(
            f"{'interrupted' if finished.interrupted else 'finished'} at step {int(finished.state.step)}\n"
        )
    np.savez(given.out, *(np.asarray(leaf) for leaf in jax.tree.leaves(finished.state)))


if __name__ == "__main__":
    main()
