"""The table of a run: one line for each sampler, one column for each metric."""

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .rows import Row

KEYS = ("samples", "sampler", "nfe", "step", "average", "seed")
HALVES = "real half against real half"
HELD_OUT = "real held-out images"


def table(rows: Sequence[Row]) -> Table:
    """Lay rows out by what they were measured on; of repeated measurements the last counts.

    Below the samples stand what one half of the real images scores against the other, and the classifier's
    accuracy on real held-out images: a score beyond these says nothing. Facts that all rows share are in the
    caption.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to show")
    # Counts of constant images are news only if there are some.
    shown = [row for row in rows if row["value"] != 0 or not row["metric"].startswith("constant_images")]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    shared, keys = _split_keys(shown)
    cells = {(tuple(row.get(key) for key in keys), row["metric"]): row["value"] for row in shown}
    floors = {row["metric"]: row["real_floor"] for row in shown if "real_floor" in row}
    held_out = {row["metric"]: row["held_out_accuracy"] for row in shown if "held_out_accuracy" in row}
    decimals = {metric: _decimals([v for (_, m), v in cells.items() if m == metric]) for metric in metrics}

    def line(label: Sequence[Any], values: dict[str, float]) -> list[str]:
        numbers = [f"{values[m]:.{decimals[m]}f}" if m in values else "" for m in metrics]
        return ["" if part is None else str(part) for part in label] + numbers

    result = Table(box=SIMPLE_HEAD, caption=_caption(shown, shared), caption_justify="left")
    for key in keys:
        result.add_column(key, justify="left" if key in ("samples", "sampler", "average") else "right", no_wrap=True)
    for metric in metrics:
        # Stacked words keep eight columns inside 80 characters.
        result.add_column(metric.replace("_", "\n"), justify="right", no_wrap=True)
    lines = list(dict.fromkeys(label for label, _ in cells))
    for label in lines:
        values = {metric: cells[label, metric] for metric in metrics if (label, metric) in cells}
        result.add_row(*line(label, values), end_section=label == lines[-1])
    for name, values in ((HALVES, floors), (HELD_OUT, held_out)):
        if values:
            result.add_row(*line([name] + [""] * (len(keys) - 1), values), style="dim")
    return result


def print_report(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print the table of `rows` to stdout, or to `console`; a pipe is taken to be 160 characters wide."""
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=160)
    console.print(table(rows))


def _split_keys(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Keys with one value throughout, and those that tell lines apart; the first column is always there."""
    present = [key for key in KEYS if any(key in row for row in rows)]
    differ = [key for key in present if len({row.get(key) for row in rows}) > 1]
    keys = [key for key in present if key in differ or key in ("samples", "sampler", "nfe")]
    return [key for key in present if key not in keys], keys


def _decimals(values: Sequence[float]) -> int:
    """Decimals that give the largest number of a column four digits."""
    largest = max(abs(value) for value in values)
    return 3 if largest == 0 else min(6, max(0, 3 - math.floor(math.log10(largest))))


def _caption(rows: Sequence[Row], shared: Sequence[str]) -> str:
    lines = [", ".join(f"{key} {rows[0][key]}" for key in shared)]
    for key in ("reference", "classifier", "warning"):
        lines += list(dict.fromkeys(f"{key}: {_describe(row, key)}" for row in rows if key in row))
    return "\n".join(text for text in lines if text)


def _describe(row: Row, key: str) -> str:
    if key == "reference":
        return f"{row['reference']}, {row['reference_n']} images, {row['feature']}, {row['reference_sha256'][:8]}"
    return str(row[key])
