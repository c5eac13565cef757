"""What streaming attention saves: memory of a training step, and time of attention alone, beside plain attention.

    python -m benchmarks.attention --out attention.json
    python -m benchmarks.attention --tpu v5e:2x4 --rounds 0

A step is loss, gradient, AdamW and an average of the parameters of a DiT. Its memory is the compiler's count of
temporaries on one device; nothing is run. With `--tpu` it is compiled for that TPU, which needs libtpu and no TPU.
Times are those of attention alone on JAX's default device, medians over rounds in which both take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Sharding, SingleDeviceSharding
from rich.table import Table

from models import DiT
from models.attention import Attention, plain_attention
from models.remat import keep_nothing
from models.streaming_attention import streaming_attention
from train import topology_devices

from .showing import console, keep
from .step_networks import bind
from .step_recipes import RECIPES
from .transformer import add_transformer, transformer

STEPS = ("flow matching", "MeanFlow, s < t in all", "sCT")
ATTENTIONS: dict[str, Attention] = {"plain": plain_attention, "streamed": streaming_attention}


def temporary_bytes(name: str, model: DiT, *, side: int, channels: int, batch: int, where: Sharding) -> int:
    """Bytes of temporaries of a step of this recipe on images [side, side, channels]."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)
    t, y = jax.ShapeDtypeStruct((batch,), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    params = jax.eval_shape(model.init, key, x, t, y, t)
    optimizer = optax.adamw(1e-4)

    def step(state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        params, moments, average = state

        def loss(params: Any) -> jax.Array:
            return jnp.mean(RECIPES[name](bind(model, {"u": params}), x, y, key))

        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        params = optax.apply_updates(params, updates)
        return params, moments, optax.incremental_update(params, average, 1e-4)

    given = ((params, jax.eval_shape(optimizer.init, params), params), x, y, key)
    placed = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), given)
    memory: Any = jax.jit(step, donate_argnums=0).lower(*placed).compile().memory_analysis()
    return int(memory.temp_size_in_bytes)


def passes(attention: Attention) -> dict[str, Callable[..., Any]]:
    """Attention alone: output, output and tangent, gradient."""

    def square(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(attention(q, k, v) ** 2)

    return {
        "forward": jax.jit(attention),
        "tangent": jax.jit(lambda *x: jax.jvp(attention, x, x)),
        "gradient": jax.jit(jax.grad(square, (0, 1, 2))),
    }


def seconds(length: int, *, batch: int, heads: int, features: int, rounds: int) -> list[dict[str, Any]]:
    """Median time of each pass at this length, plain and streamed in turn after one call that is not counted."""
    x = [jax.random.normal(jax.random.key(i), (batch, length, heads, features)) for i in range(3)]
    functions = {name: passes(attention) for name, attention in ATTENTIONS.items()}
    rows = []
    for what in functions["plain"]:
        taken: dict[str, list[float]] = {name: [] for name in functions}
        for number in range(rounds + 1):
            for name, function in functions.items():
                start = time.perf_counter()
                jax.block_until_ready(function[what](*x))
                if number:
                    taken[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(times) for name, times in taken.items()}
        rows.append({"tokens": length, "what": what, **medians, "ratio": medians["streamed"] / medians["plain"]})
    return rows


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose first two columns are words."""
    result = Table(title=title)
    for number, column in enumerate(columns):
        result.add_column(column, justify="left" if number < 2 else "right")
    for row in rows:
        result.add_row(*row)
    return result


def main() -> None:
    """Counts, measures, prints the tables and writes them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_transformer(parser, width=384, depth=12, heads=6, side=128, batch=4)
    parser.add_argument("--remat", action="store_true", help="blocks are computed again in the backward pass")
    parser.add_argument("--tpu", help="compile for a TPU, such as v5e:2x4; otherwise for the default device")
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--times_only", action="store_true", help="leave the memory of steps out")
    parser.add_argument("--rounds", type=int, default=5, help="calls that are timed; 0 for none")
    parser.add_argument("--out", type=Path, help="write the tables here as JSON")
    given = parser.parse_args()

    device: Any
    if given.tpu:
        try:
            device = topology_devices(given.tpu)[0]
        except (ValueError, ImportError) as error:
            parser.error(f"--tpu: {error}")
    else:
        device = jax.devices()[0]
    model = transformer(given)
    if given.remat:
        model = model.clone(remat=keep_nothing)
    sizes = {"side": given.side, "channels": given.channels, "batch": given.batch}

    memory: list[dict[str, Any]] = []
    screen = console()
    for recipe in () if given.times_only else STEPS:
        counted = {
            name: temporary_bytes(recipe, model.clone(attention=attention), where=SingleDeviceSharding(device), **sizes)
            for name, attention in ATTENTIONS.items()
        }
        memory.append({"recipe": recipe, **counted, "ratio": counted["streamed"] / counted["plain"]})
        screen.print(f"{recipe}: done")
    tokens = (given.side // given.patch) ** 2
    dtype = jnp.dtype(model.dtype).name
    title = f"temporaries of a step, GB: {device.device_kind}, {tokens} tokens, batch {given.batch}, {dtype}"
    rows = [
        (r["recipe"], device.platform, f"{r['plain'] / 1e9:.2f}", f"{r['streamed'] / 1e9:.2f}", f"{r['ratio']:.3f}")
        for r in memory
    ]
    if rows:
        screen.print(table(title, ("recipe", "platform", "plain", "streamed", "ratio"), rows))

    times: list[dict[str, Any]] = []
    if given.rounds:
        shape = {"batch": 1, "heads": given.heads, "features": given.width // given.heads}
        for length in given.lengths:
            times += seconds(length, rounds=given.rounds, **shape)
        rows = [
            (r["what"], str(r["tokens"]), f"{r['plain'] * 1e3:.1f}", f"{r['streamed'] * 1e3:.1f}", f"{r['ratio']:.2f}")
            for r in times
        ]
        title = f"attention alone, ms: {jax.devices()[0].device_kind}, {shape}, float32"
        screen.print(table(title, ("what", "tokens", "plain", "streamed", "ratio"), rows))
    keep(given, compiled_for=device.device_kind, memory=memory, times=times)


if __name__ == "__main__":
    main()
