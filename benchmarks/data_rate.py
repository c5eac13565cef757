"""Images a second that each data source gives, streamed and from memory.

    python -m benchmarks.data_rate --data_dir ~/tensorflow_datasets --log runs/digits/train.jsonl --out rate.json
    python -m benchmarks.data_rate --data_dir ~/tensorflow_datasets --steps_at 10000 --processes 2

A run waits for its data when a rate here is below its training rate; `--log` puts that rate beside. With `--steps_at` a
device that trains so many images a second is stood in for by a clock, and the last column is the share of its time that
it waits for batches. `--photographs 2000` adds so many made-up ones of ImageNet's size, in files like ImageNet's, which
are cropped and made smaller as they are read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table

from data import ArraySource, Source, batches, cached, digits, tfds_source
from train.loop import STEPS_IN_FLIGHT

from . import photographs
from .showing import console, keep


@dataclass(frozen=True)
class Row:
    """One measurement; `images_per_second` is None where the data are not here."""

    data: str
    read: str
    shape: tuple[int, int, int] | None = None
    images_per_second: float | None = None
    seconds_to_cache: float | None = None
    waiting: float | None = None


def rate(source: Source, *, batch_size: int, seconds: float, processes: int = 0) -> float:
    """Images a second over at least `seconds`, after the first batches have filled the threads' buffers."""
    iterator = batches(source, seed=0, batch_size=batch_size, num_processes=processes)
    for _ in range(10):
        next(iterator)
    read, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(iterator)
        read += 1
    return read * batch_size / elapsed


def waiting_share(
    source: Source, *, batch_size: int, seconds: float, images_per_second: float, processes: int = 0
) -> float:
    """Share of its time that a device waits for batches that would train so many images a second."""
    iterator = batches(source, seed=0, batch_size=batch_size, num_processes=processes)
    for _ in range(10):
        next(iterator)
    step, waited = batch_size / images_per_second, 0.0
    begin = device_ends = time.perf_counter()
    in_flight: deque[float] = deque()
    while (elapsed := time.perf_counter() - begin) < seconds:
        next(iterator)
        ready = time.perf_counter()
        waited += max(ready - device_ends, 0.0)
        device_ends = max(ready, device_ends) + step
        in_flight.append(device_ends)
        if len(in_flight) > STEPS_IN_FLIGHT:  # as the loop does, which reads scalars so many steps late
            time.sleep(max(in_flight.popleft() - time.perf_counter(), 0.0))
    return waited / elapsed


def measure(
    source: Source, *, batch_size: int, seconds: float, processes: int = 0, steps_at: float | None = None
) -> list[Row]:
    """The rows of one source: streamed, by processes too if there are any, and cached; only that if it is in memory."""

    def share(source: Source, processes: int = 0) -> float | None:
        if steps_at is None:
            return None
        return waiting_share(
            source, batch_size=batch_size, seconds=seconds, images_per_second=steps_at, processes=processes
        )

    rows = []
    if not isinstance(source, ArraySource):
        for n in sorted({0, processes}):
            streamed = rate(source, batch_size=batch_size, seconds=seconds, processes=n)
            read = f"streamed, {n} processes" if n else "streamed"
            rows.append(Row(source.name, read, source.shape, streamed, waiting=share(source, n)))
    start = time.perf_counter()
    in_memory = cached(source)
    seconds_to_cache = time.perf_counter() - start if in_memory is not source else None
    in_memory_rate = rate(in_memory, batch_size=batch_size, seconds=seconds)
    last = Row(source.name, "in memory", source.shape, in_memory_rate, seconds_to_cache, share(in_memory))
    return [*rows, last]


def train_rate(log: Path) -> float:
    """Median of "images_per_second" over the rows of a training log (JSON lines)."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
    if not rates:
        raise ValueError(f"{log} has no row with 'images_per_second'")
    return statistics.median(rates)


def table(rows: list[Row], *, batch_size: int, trained: float | None, steps_at: float | None = None) -> Table:
    """The measurements, with the multiple of the training rate and the share of waiting if there are any."""
    result = Table(title=f"images per second at batch size {batch_size}")
    for column in ("data", "read", "shape", "seconds to cache", "images/s"):
        result.add_column(column, justify="left" if column in ("data", "read") else "right")
    if trained is not None:
        result.add_column(f"x training ({trained:,.0f}/s)", justify="right")
    if steps_at is not None:
        result.add_column(f"waiting at {steps_at:,.0f}/s", justify="right")
    for row in rows:
        if row.images_per_second is None or row.shape is None:
            result.add_row(row.data, "not here")
            continue
        cells = [row.data, row.read, "x".join(map(str, row.shape))]
        cells.append("" if row.seconds_to_cache is None else f"{row.seconds_to_cache:.1f}")
        cells.append(f"{row.images_per_second:,.0f}")
        if trained is not None:
            cells.append(f"{row.images_per_second / trained:,.1f}")
        if row.waiting is not None:
            cells.append(f"{row.waiting:.2%}")
        result.add_row(*cells)
    return result


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", help="where TFDS data sets are prepared (default: TFDS's own)")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each row")
    parser.add_argument("--processes", type=int, default=0, help="also stream by so many processes")
    parser.add_argument("--steps_at", type=float, help="images a second of the device that waits")
    parser.add_argument("--photographs", type=int, default=0, help="so many made-up ones of ImageNet's size too")
    parser.add_argument("--size", type=int, default=64, help="what they are cropped and resized to")
    parser.add_argument("--log", type=Path, help="a run's train.jsonl: puts its training rate beside")
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    arguments = parser.parse_args()
    trained = None if arguments.log is None else train_rate(arguments.log)

    how = {
        "batch_size": arguments.batch_size,
        "seconds": arguments.seconds,
        "processes": arguments.processes,
        "steps_at": arguments.steps_at,
    }
    rows = measure(digits(), **how)
    for name in ("mnist", "cifar10"):
        try:
            source = tfds_source(name, data_dir=arguments.data_dir)
        except FileNotFoundError:
            rows.append(Row(name, "not here"))
        else:
            rows += measure(source, **how)
    if arguments.photographs:
        with tempfile.TemporaryDirectory() as folder:
            photographs.write(Path(folder), arguments.photographs)
            source = tfds_source(photographs.NAME, data_dir=folder, size=arguments.size)
            rows += [replace(row, data=f"{row.data}, made up") for row in measure(source, **how)]

    console().print(table(rows, batch_size=arguments.batch_size, trained=trained, steps_at=arguments.steps_at))
    keep(arguments, train_images_per_second=trained, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    main()
