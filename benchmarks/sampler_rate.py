"""Images a second that samplers make of noise, beside what the calls of the network alone would allow.

    python -m benchmarks.sampler_rate --out sampler_rate.json
    python -m benchmarks.sampler_rate --width 768 --depth 12 --heads 12 --side 32 --batch 64 --bfloat16

All with the same transformer at random weights, which cost what trained ones do. The last column is the time of a call
of the network, times the number of calls, over the time of the sampler: 1 if the sampler itself costs nothing.
Times are medians over rounds in which all take turns, each right after a call of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from rich.table import Table

from losses import conversions, edm, linear
from models import DiT, preconditioning
from samplers import ddim, euler, flow_map, grids, heun, multistep_consistency, sample_keys

from .showing import console, keep
from .transformer import add_transformer, image_shape, transformer

CALL = "one call of the network"


class Sampler(NamedTuple):
    """How often it calls the network, and what it makes of (parameters, noise, labels, keys)."""

    calls: int
    run: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


def samplers(model: DiT) -> dict[str, Sampler]:
    """Consistency models and flow maps in 1, 2 and 4 calls, and the solvers that they replace."""

    def u(params: Any, x: jax.Array, t: jax.Array, s: jax.Array, y: jax.Array) -> jax.Array:
        return cast(jax.Array, model.apply(params, x, t, y, t - s))

    def net(params: Any, y: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return lambda x, t: u(params, x, t, t, y)

    def consistent(params: Any, x: jax.Array, y: jax.Array, keys: jax.Array, *, times: tuple[float, ...]) -> jax.Array:
        f = preconditioning.consistency(net(params, y))
        return multistep_consistency(f, times[0] * x, times, keys=keys, path=edm)

    def jumps(params: Any, x: jax.Array, y: jax.Array, keys: jax.Array, *, n: int) -> jax.Array:
        jump = conversions.average_velocity_to_flow_map(lambda x, t, s: u(params, x, t, s, y))
        return flow_map(jump, x, grids.linear(n))

    def solved(params: Any, x: jax.Array, y: jax.Array, keys: jax.Array, *, solver: Any, n: int) -> jax.Array:
        return cast(jax.Array, solver(net(params, y), x, grids.linear(n)))

    few = {1: (80.0,), 2: (80.0, 0.8), 4: (80.0, 5.0, 0.8, 0.2)}
    return {
        CALL: Sampler(1, lambda params, x, y, keys: net(params, y)(x, jnp.full(len(x), 0.5))),
        **{f"consistency, {n}": Sampler(n, partial(consistent, times=times)) for n, times in few.items()},
        **{f"MeanFlow, {n}": Sampler(n, partial(jumps, n=n)) for n in few},
        "DDIM, 50": Sampler(50, partial(solved, solver=partial(ddim, path=linear), n=50)),
        "Euler, 50": Sampler(50, partial(solved, solver=euler, n=50)),
        "Heun, 18": Sampler(35, partial(solved, solver=heun, n=18)),
    }


def measure(
    chosen: Mapping[str, Sampler], model: DiT, *, shape: tuple[int, int, int], batch: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each sampler: calls, seconds of a batch, images a second, share of it that is the network's."""
    x, y = jax.random.normal(jax.random.key(0), (batch, *shape)), jnp.zeros(batch, jnp.int32)
    keys, t = sample_keys(0, jnp.arange(batch)), jnp.ones(batch)
    params = jax.jit(model.init)(jax.random.key(2), x, t, y, t)
    compiled = {name: jax.jit(sampler.run).lower(params, x, y, keys).compile() for name, sampler in chosen.items()}
    taken: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, run in compiled.items():
            jax.block_until_ready(run(params, x, y, keys))
            start = time.perf_counter()
            jax.block_until_ready(run(params, x, y, keys))
            taken[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return [
        {
            "sampler": name, "calls": sampler.calls, "seconds": medians[name],
            "images_per_second": batch / medians[name], "network_share": sampler.calls * medians[CALL] / medians[name],
        }
        for name, sampler in chosen.items()
    ]  # fmt: skip


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """A line for each sampler."""
    result = Table(title=title)
    for column in ("sampler, steps", "calls", "ms a batch", "images/s", "share of the calls"):
        result.add_column(column, justify="left" if column == "sampler, steps" else "right")
    for row in rows:
        rate = f"{row['images_per_second']:,.1f}"
        share = f"{row['network_share']:.2f}"
        result.add_row(row["sampler"], str(row["calls"]), f"{1e3 * row['seconds']:.0f}", rate, share)
    return result


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_transformer(parser, width=256, depth=6, heads=4, side=16, batch=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    given = parser.parse_args()
    model, shape = transformer(given), image_shape(given)
    rows = measure(samplers(model), model, shape=shape, batch=given.batch, rounds=given.rounds)
    device = jax.devices()[0].device_kind
    console().print(table(rows, f"samples of {shape}, {given.batch} at a time, on {device}"))
    keep(given, rows=rows)


if __name__ == "__main__":
    main()
