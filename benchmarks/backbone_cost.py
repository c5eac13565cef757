"""What a training step of each backbone costs, for losses that differ in what they ask of a network.

    python -m benchmarks.backbone_cost --out backbone_cost.json
    python -m benchmarks.backbone_cost --published --batch 64 --bfloat16

Flow matching is a call and its gradient, ECT a call more without one, sCT a derivative forwards. Operations, bytes,
memory and times are those of `step_cost`; ratios are to flow matching with the same backbone. The small networks are of
about a million parameters on images of 32 x 32 x 3, the published ones as their papers have them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.table import Table

from models import SIZES, DiT, UViT, adm, ddpmpp, edm2, ncsnpp
from train.chips import Chip, chip_of

from .showing import console, keep
from .step_cost import Program, compiled_once, cost, seconds
from .step_networks import bind
from .step_recipes import BASELINE, RECIPES

ASKED = (BASELINE, "ECT", "sCT")
CLASSES = 10

Backbone = Any
"""A Flax module that is called with (x, t, labels)"""


class Case(NamedTuple):
    """A network and the images it is made for."""

    model: Backbone
    shape: tuple[int, int, int]


def small(dtype: Any) -> dict[str, Case]:
    """About a million parameters each."""
    common: dict[str, Any] = {"num_classes": CLASSES, "dropout": 0.0, "dtype": dtype}
    unet: dict[str, Any] = {
        "channels": 32,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention_resolutions": (16,),
        **common,
    }
    return {
        "DiT": Case(DiT(4, 128, 4, 4, num_classes=CLASSES, dtype=dtype), (32, 32, 3)),
        "DDPM++": Case(ddpmpp(**unet), (32, 32, 3)),
        "NCSN++": Case(ncsnpp(**unet), (32, 32, 3)),
        "ADM": Case(adm(**unet, channels_per_head=32), (32, 32, 3)),
        "EDM2": Case(edm2(**unet, channels_per_head=32), (32, 32, 3)),
        "UViT": Case(UViT(32, (1,), 1, 128, 4, 4, embedding_width=128, **common), (32, 32, 3)),
    }


def published(dtype: Any) -> dict[str, Case]:
    """DiT-B/2 in latents of ImageNet-256, EDM's for CIFAR-10, ADM, EDM2-S and Multistep CM's UViT for ImageNet-64."""
    common: dict[str, Any] = {"dropout": 0.0, "dtype": dtype}
    return {
        "DiT-B/2": Case(DiT(2, **SIZES["B"]._asdict(), num_classes=1000, dtype=dtype), (32, 32, 4)),
        "DDPM++": Case(ddpmpp(num_classes=CLASSES, **common), (32, 32, 3)),
        "NCSN++": Case(ncsnpp(num_classes=CLASSES, **common), (32, 32, 3)),
        "ADM": Case(adm(num_classes=1000, **common), (64, 64, 3)),
        "EDM2-S": Case(edm2(num_classes=1000, **common), (64, 64, 3)),
        "UViT": Case(UViT(num_classes=1000, **common), (64, 64, 3)),
    }


def programs(case: Case, *, batch: int) -> dict[str, Program]:
    """Loss and gradient of the asked recipes with this network."""
    model, shape = case
    x, y = jax.ShapeDtypeStruct((batch, *shape), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    key, t = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((batch,), jnp.float32)
    inputs = ({"u": jax.eval_shape(model.init, key, x, t, y)}, x, y, key)

    def program(name: str) -> Program:
        def loss(params: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
            return jnp.mean(RECIPES[name](bind(model, params), x, y, key))

        return Program(jax.jit(jax.value_and_grad(loss)), inputs)

    return {name: program(name) for name in ASKED}


def measure(cases: Mapping[str, Case], *, batch: int, rounds: int, chip: Chip | None = None) -> list[dict[str, Any]]:
    """A row for each backbone and recipe; `seconds` is None without rounds, `mfu` without a known chip."""
    rows: list[dict[str, Any]] = []
    for name, case in cases.items():
        made = programs(case, batch=batch)
        parameters = sum(prod(leaf.shape) for leaf in jax.tree.leaves(made[BASELINE].inputs[0]))
        costs = {recipe: cost(program) for recipe, program in made.items()}
        times = seconds(made, rounds=rounds) if rounds else {}
        for recipe, counted in costs.items():
            taken = times.get(recipe)
            rows.append(
                {
                    "backbone": name, "recipe": recipe, "parameters": parameters, **counted._asdict(),
                    "operations_ratio": counted.operations / costs[BASELINE].operations,
                    "seconds": taken, "seconds_ratio": taken and taken / times[BASELINE],
                    "mfu": taken and chip and counted.operations / taken / chip.flops,
                }
            )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """A line for each backbone and recipe."""
    result = Table(title=title)
    for column in ("backbone", "recipe", "parameters", "GFLOP", "x", "memory, MB", "compile, s", "ms", "x", "MFU"):
        result.add_column(column, justify="left" if column in ("backbone", "recipe") else "right")
    for row in rows:
        result.add_row(
            row["backbone"], row["recipe"], f"{row['parameters'] / 1e6:.1f} M",
            f"{row['operations'] / 1e9:.1f}", f"{row['operations_ratio']:.2f}", f"{row['temporary_bytes'] / 1e6:.0f}",
            f"{row['compile_seconds']:.1f}", "" if row["seconds"] is None else f"{1e3 * row['seconds']:.0f}",
            "" if row["seconds"] is None else f"{row['seconds_ratio']:.2f}",
            "" if row["mfu"] is None else f"{row['mfu']:.1%}",
        )  # fmt: skip
    return result


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--published", action="store_true", help="the networks of the papers, for an accelerator")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each that are timed; 0 to only count")
    parser.add_argument("--bfloat16", action="store_true", help="blocks in bfloat16")
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    given = parser.parse_args()
    dtype = jnp.bfloat16 if given.bfloat16 else jnp.float32
    device = jax.devices()[0].device_kind
    cases = (published if given.published else small)(dtype)
    with compiled_once():
        rows = measure(cases, batch=given.batch, rounds=given.rounds, chip=chip_of(device))
    console().print(table(rows, f"a step at batch size {given.batch}; times on {device}"))
    keep(given, rows=rows)


if __name__ == "__main__":
    main()
