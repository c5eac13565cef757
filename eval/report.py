"""The table of a run: one line for each sampler, one column for each metric."""

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .rows import Row

KEYS = ("samples", "sampler", "nfe", "step", "average", "seed")
HALVES = "real halves"
HELD_OUT = "real held-out"


def table(rows: Sequence[Row]) -> Table:
    """Lay rows out by what they were measured on; of repeated measurements the last counts.

    Below the samples stand what one half of the real images scores against the other ("real halves"), and the
    classifier's accuracy on real images it has not seen ("real held-out"): a score beyond these says nothing.
    What all rows share is left out.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to show")
    # Counts of constant images are news only if there are some.
    shown = [row for row in rows if row["value"] != 0 or not row["metric"].startswith("constant_images")]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    _, keys = _split_keys(shown)
    cells = {(tuple(row.get(key) for key in keys), row["metric"]): row["value"] for row in shown}
    floors = {row["metric"]: row["real_floor"] for row in shown if "real_floor" in row}
    held_out = {row["metric"]: row["held_out_accuracy"] for row in shown if "held_out_accuracy" in row}
    decimals = {metric: _decimals([v for (_, m), v in cells.items() if m == metric]) for metric in metrics}

    def line(label: Sequence[Any], values: dict[str, float]) -> list[str]:
        numbers = [f"{values[m]:.{decimals[m]}f}" if m in values else "" for m in metrics]
        return ["" if part is None else escape(str(part)) for part in label] + numbers

    result = Table(box=SIMPLE_HEAD)
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
    """Print the table of `rows`, and below it what they have in common, to stdout or to `console`.

    A table too wide for a terminal becomes one for each feature; lines of a pipe are as long as they need.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=1000)
    unbounded = console.options.update(width=1000)
    if console.measure(table(rows), options=unbounded).maximum <= console.width:
        parts = [list(rows)]
    else:
        features = list(dict.fromkeys(row["feature"] for row in rows if "feature" in row)) or [""]
        parts = [[row for row in rows if row.get("feature", features[0]) == feature] for feature in features]
    for part in parts:
        console.print(table(part))
        for line in _shared_facts(part):
            console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _split_keys(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Keys with one value throughout, and those that tell lines apart; the first column is always there."""
    present = [key for key in KEYS if any(key in row for row in rows)]
    differ = [key for key in present if len({row.get(key) for row in rows}) > 1]
    keys = [key for key in present if key in differ or key in ("samples", "sampler", "nfe")]
    return [key for key in present if key not in keys], keys


def _decimals(values: Sequence[int | float]) -> int:
    """Decimals that give the largest number of a column four digits; none for counts."""
    if all(isinstance(value, int) for value in values):
        return 0
    largest = max(abs(value) for value in values)
    return 3 if largest == 0 else min(6, max(0, 3 - math.floor(math.log10(largest))))


def _shared_facts(rows: Sequence[Row]) -> list[str]:
    shared, _ = _split_keys(rows)
    references = [
        f"{row['reference']}, {row['reference_n']} images, {row['feature']}, {row['reference_sha256'][:8]}"
        for row in rows
        if "reference" in row
    ]
    lines = [", ".join(f"{key} {rows[0][key]}" for key in shared)]
    lines += [f"reference: {text}" for text in dict.fromkeys(references)]
    for key in ("classifier", "warning"):
        lines += [f"{key}: {text}" for text in dict.fromkeys(row[key] for row in rows if key in row)]
    return [line for line in lines if line]
