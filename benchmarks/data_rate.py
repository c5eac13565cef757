"""Images a second that each data source gives, streamed and from memory.

    python -m benchmarks.data_rate --data_dir ~/tensorflow_datasets --log runs/digits/train.jsonl --out rate.json

A run waits for its data when a rate here is below its training rate; `--log` puts that rate beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data import ArraySource, Source, batches, cached, digits, tfds_source


@dataclass(frozen=True)
class Row:
    """One measurement; `images_per_second` is None where the data are not here."""

    data: str
    read: str
    shape: tuple[int, int, int] | None = None
    images_per_second: float | None = None
    seconds_to_cache: float | None = None


def rate(source: Source, *, batch_size: int, seconds: float) -> float:
    """Images a second over at least `seconds`, after the first batches have filled the threads' buffers."""
    iterator = batches(source, seed=0, batch_size=batch_size)
    for _ in range(10):
        next(iterator)
    read, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(iterator)
        read += 1
    return read * batch_size / elapsed


def measure(source: Source, *, batch_size: int, seconds: float) -> list[Row]:
    """The rows of one source: streamed and then cached, or only the latter if it lies in memory anyhow."""
    rows = []
    if not isinstance(source, ArraySource):
        streamed = rate(source, batch_size=batch_size, seconds=seconds)
        rows.append(Row(source.name, "streamed", source.shape, streamed))
    start = time.perf_counter()
    in_memory = cached(source)
    seconds_to_cache = time.perf_counter() - start if in_memory is not source else None
    in_memory_rate = rate(in_memory, batch_size=batch_size, seconds=seconds)
    return [*rows, Row(source.name, "in memory", source.shape, in_memory_rate, seconds_to_cache)]


def train_rate(log: Path) -> float:
    """Median of "images_per_second" over the rows of a training log (JSON lines)."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
    if not rates:
        raise ValueError(f"{log} has no row with 'images_per_second'")
    return statistics.median(rates)


def table(rows: list[Row], *, batch_size: int, trained: float | None) -> Table:
    """The measurements, with the multiple of the training rate if there is one."""
    result = Table(title=f"images per second at batch size {batch_size}")
    for column in ("data", "read", "shape", "seconds to cache", "images/s"):
        result.add_column(column, justify="left" if column in ("data", "read") else "right")
    if trained is not None:
        result.add_column(f"x training ({trained:,.0f}/s)", justify="right")
    for row in rows:
        if row.images_per_second is None or row.shape is None:
            result.add_row(row.data, "not here")
            continue
        cells = [row.data, row.read, "x".join(map(str, row.shape))]
        cells.append("" if row.seconds_to_cache is None else f"{row.seconds_to_cache:.1f}")
        cells.append(f"{row.images_per_second:,.0f}")
        if trained is not None:
            cells.append(f"{row.images_per_second / trained:,.1f}")
        result.add_row(*cells)
    return result


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", help="where TFDS data sets are prepared (default: TFDS's own)")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each row")
    parser.add_argument("--log", type=Path, help="a run's train.jsonl: puts its training rate beside")
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    arguments = parser.parse_args()
    trained = None if arguments.log is None else train_rate(arguments.log)

    rows = measure(digits(), batch_size=arguments.batch_size, seconds=arguments.seconds)
    for name in ("mnist", "cifar10"):
        try:
            source = tfds_source(name, data_dir=arguments.data_dir)
        except FileNotFoundError:
            rows.append(Row(name, "not here"))
        else:
            rows += measure(source, batch_size=arguments.batch_size, seconds=arguments.seconds)

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table(rows, batch_size=arguments.batch_size, trained=trained))
    if arguments.out is not None:
        result = {
            "batch_size": arguments.batch_size,
            "train_images_per_second": trained,
            "rows": [asdict(row) for row in rows],
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
