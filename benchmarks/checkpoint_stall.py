"""How long training waits for checkpoints that are written in the background.

    python -m benchmarks.checkpoint_stall --parameters 33e6 --step_seconds 0.2 --every 100 --out stall.json

A state of so many parameters with Adam's moments and one average, four arrays of float32 each, is saved by train's own
`save` while steps go on. A step adds to the state in its place, and sleeps in the stead of a device: what is measured
is the host. Steps with and without saves take turns in rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from train.checkpoint import open_checkpoints, save

from .showing import console, keep

PARTS = ("params", "mu", "nu", "ema")


def state_of(parameters: int, arrays: int = 16) -> dict[str, Any]:
    """Four copies of some arrays that together have so many numbers."""
    size = max(parameters // arrays, 1)
    return {part: [jnp.full(size, 1.0 + i) for i in range(arrays)] for part in PARTS}


def seconds_of(state: Any, folder: Path, *, steps: int, every: int, step_seconds: float) -> tuple[float, float, Any]:
    """Seconds of so many steps, of them those within `save`, and the state; every 0 saves nothing."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    saving = 0.0
    with open_checkpoints(folder) as checkpoints:
        state = jax.block_until_ready(step(state))
        begin = time.perf_counter()
        for number in range(1, steps + 1):
            state = jax.block_until_ready(step(state))
            time.sleep(step_seconds)
            if every and number % every == 0:
                start = time.perf_counter()
                save(checkpoints, number, state, {})
                saving += time.perf_counter() - start
        return time.perf_counter() - begin, saving, state


def measure(*, parameters: int, every: int, step_seconds: float, rounds: int) -> list[dict[str, float]]:
    """One row a round: seconds of `2 every` steps without a save and with two."""
    state, rows = state_of(parameters), []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            how: dict[str, Any] = {"steps": 2 * every, "step_seconds": step_seconds}
            without, _, state = seconds_of(state, Path(folder, "none"), every=0, **how)
            with_saves, saving, state = seconds_of(state, Path(folder, "saves"), every=every, **how)
        rows.append({"without": without, "with": with_saves, "in_save": saving, "share": with_saves / without - 1})
    return rows


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parameters", type=float, default=33e6)
    parser.add_argument("--step_seconds", type=float, default=0.2)
    parser.add_argument("--every", type=int, default=100, help="steps between saves")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    given = parser.parse_args()
    rows = measure(
        parameters=int(given.parameters), every=given.every, step_seconds=given.step_seconds, rounds=given.rounds
    )
    gigabytes = 4 * 4 * given.parameters / 1e9
    table = Table(title=f"{gigabytes:.2f} GB saved every {given.every} steps, {2 * given.every} steps a row")
    for column in ("without, s", "with, s", "within save, s", "longer by"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(f"{row['without']:.1f}", f"{row['with']:.1f}", f"{row['in_save']:.2f}", f"{row['share']:.1%}")
    console().print(table)
    share = statistics.median(row["share"] for row in rows)
    console().print(f"median: longer by {share:.1%}")
    keep(given, gigabytes=gigabytes, median_share=share, rows=rows)


if __name__ == "__main__":
    main()
