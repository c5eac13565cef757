"""What a training step of each recipe costs, as a multiple of flow matching's with the same transformer.

    python -m benchmarks.step_cost --out step_cost.json
    python -m benchmarks.step_cost --width 768 --depth 12 --heads 12 --side 32 --batch 64 --bfloat16

A step is loss and gradient; the optimizer, which is the same for all, is left out. Operations and bytes are those of
the program compiled for this machine's CPU (train/program_cost.py), a loop's body as often as it runs; what a callback
does on the host is in the times only.
The recipes are those of step_recipes.py; a line more there is a line more here.
MFU is the share of the chip's peak in bfloat16, for the chips of train/chips.py.
Times are medians over rounds in which the recipes take turns, on JAX's default device (JAX_PLATFORMS).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.table import Table

from models import DiT
from train.chips import Chip, chip_of
from train.program_cost import cost_of

from .showing import console, keep
from .step_networks import bind, shapes
from .step_recipes import BASELINE, RECIPES, Recipe
from .transformer import add_transformer, image_shape, transformer


class Cost(NamedTuple):
    """What the compiler says of one step."""

    operations: float
    bytes_accessed: float
    temporary_bytes: float
    compile_seconds: float = 0.0


class Program(NamedTuple):
    """A jitted step, and the shapes of what it takes: (parameters of the networks, x, labels, key)."""

    step: Any
    inputs: tuple[Any, ...]


def programs(
    recipes: Mapping[str, Recipe], model: DiT, *, shape: tuple[int, int, int], batch: int
) -> dict[str, Program]:
    """Loss and gradient of each recipe with networks of this kind, on a batch of images of this shape."""
    x, y = jax.ShapeDtypeStruct((batch, *shape), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    inputs = (shapes(model, shape), x, y, key)

    def program(recipe: Recipe) -> Program:
        def loss(params: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
            return jnp.mean(recipe(bind(model, params), x, y, key))

        return Program(jax.jit(jax.value_and_grad(loss)), inputs)

    return {name: program(recipe) for name, recipe in recipes.items()}


@contextmanager
def compiled_once() -> Iterator[None]:
    """Within it a program that was counted is not compiled again to be timed; earlier runs leave nothing to find."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield


def cost(program: Program) -> Cost:
    """What the compiler counts for the CPU; nothing is run."""
    with jax.default_device(jax.devices("cpu")[0]):
        start = time.perf_counter()
        compiled = program.step.lower(*program.inputs).compile()
        compile_seconds = time.perf_counter() - start
    counted, memory = cost_of(compiled.as_text()), compiled.memory_analysis()
    return Cost(counted.flops, counted.bytes_accessed, float(memory.temp_size_in_bytes), compile_seconds)


def seconds(all_programs: Mapping[str, Program], *, rounds: int) -> dict[str, float]:
    """Median time of a step of each.

    Each is timed right after a step of its own: what ran before it decides what is in the caches and which memory has
    to be fetched from the system again, half of the time of a small step after a large one.
    """

    def made(a: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return (
            0.1 * jnp.ones(a.shape, a.dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.zeros(a.shape, a.dtype)
        )

    inputs = jax.tree.map(made, next(iter(all_programs.values())).inputs)
    taken: dict[str, list[float]] = {name: [] for name in all_programs}
    for _ in range(rounds):
        for name, program in all_programs.items():
            jax.block_until_ready(program.step(*inputs))
            start = time.perf_counter()
            jax.block_until_ready(program.step(*inputs))
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Each recipe against the baseline."""
    result = Table(title=title)
    for column in ("recipe", "operations", "bytes", "temporary memory", "compile time", "time", "MFU"):
        result.add_column(column, justify="left" if column == "recipe" else "right")
    for row in rows:
        ratios = (row[f"{name}_ratio"] for name in (*Cost._fields, "seconds"))
        used = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        result.add_row(row["recipe"], *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios), used)
    return result


def rows_of(costs: Mapping[str, Cost], times: Mapping[str, float], chip: Chip | None = None) -> list[dict[str, Any]]:
    """One row for each recipe, in plain numbers and as multiples of the baseline; of a known chip the share in use."""
    rows = []
    for name, counted in costs.items():
        values = {**counted._asdict(), "seconds": times.get(name)}
        baseline = {**costs[BASELINE]._asdict(), "seconds": times.get(BASELINE)}
        ratios = {f"{key}_ratio": value / baseline[key] if value else None for key, value in values.items()}
        used = counted.operations / times[name] / chip.flops if chip and name in times else None
        rows.append({"recipe": name, **values, **ratios, "mfu": used})
    return rows


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_transformer(parser, width=256, depth=6, heads=4, side=16, batch=16)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each recipe that are timed; 0 to only count")
    parser.add_argument("--only", nargs="*", default=[], help="recipes whose names contain one of these")
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    given = parser.parse_args()
    chosen = {
        name: recipe
        for name, recipe in RECIPES.items()
        if name == BASELINE or not given.only or any(part in name for part in given.only)
    }
    measured = programs(chosen, transformer(given), shape=image_shape(given), batch=given.batch)
    with compiled_once():
        costs = {name: cost(program) for name, program in measured.items()}
        times = seconds(measured, rounds=given.rounds) if given.rounds else {}
    device = jax.devices()[0].device_kind
    rows = rows_of(costs, times, chip_of(device))
    console().print(table(rows, f"a step against flow matching; times on {device}"))
    keep(given, rows=rows)


if __name__ == "__main__":
    main()
