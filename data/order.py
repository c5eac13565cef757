"""Deterministic batches: what batch k holds depends on (seed, k) and on nothing that happened before.

The order is grain's: its shuffle permutes the whole data set anew in every epoch, for ever, and answers for any
position without walking there.  Batch k holds the positions k * batch_size + row of that endless order, so a run
restarts at any step with no state but the step, and a process of a multi-host run reads its rows of the same global
batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .memory import ArraySource
from .source import Batch, Source, take

if TYPE_CHECKING:
    import grain


def batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    num_threads: int = 8,
    num_processes: int = 0,
) -> Iterator[Batch]:
    """Endless batches of uint8 [B, height, width, channels] images and, if there are any, int32 [B] labels.

    Every example comes exactly once in an epoch; a batch may reach from one epoch into the next, so none is
    dropped.  Starting at `start_step` gives what an iteration from 0 gives from there on.

    Args:
        source: where examples come from; memory sources are indexed directly, others read by threads.
        seed: the order of the examples.
        batch_size: size of the global batch, over all processes.
        start_step: index of the first batch, the number of steps already trained.
        rows: this process's rows of the global batch, for example range(64, 128); None is all.
        num_threads: threads that read ahead, each one batch; as many batches wait in memory.
        num_processes: processes that read ahead in place of this one, each with as many threads; 0 for none. They pay
            where decoding holds Python's lock, and take some seconds to start. Batches are the same.

    Raises:
        ValueError: an empty source, `batch_size` outside 1 .. len(source), a negative `seed`, `start_step` or
            `num_processes`, no `rows` or some outside the batch, `num_threads` below 1.
    """
    count = len(source)
    rows = _check_arguments(source, seed, batch_size, start_step, rows, num_threads)
    if num_processes < 0:
        raise ValueError(f"num_processes is {num_processes}, it must not be negative")
    import grain  # here, because it takes as long to import as jax

    order = endless_order(count, seed=seed)

    def read(step: int) -> Batch:
        first = step * batch_size
        return take(source, np.fromiter((order[first + row] for row in rows), np.int64, len(rows)))

    # Copying rows in memory takes less time than handing the work to a thread.
    threads = 0 if isinstance(source, ArraySource) else num_threads
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    dataset = grain.MapDataset.range(start_step, sys.maxsize).map(read).to_iter_dataset(options)
    if num_processes:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain's processes look at its flags, which programs without flags never parse
            flags.FLAGS(sys.argv[:1])
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_processes))
    return iter(dataset)


def endless_order(count: int, *, seed: int) -> grain.MapDataset[int]:
    """The index of the example at each position 0, 1, 2, ... of the order: one permutation of the set after another."""
    import grain

    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


def _check_arguments(
    source: Source, seed: int, batch_size: int, start_step: int, rows: Sequence[int] | None, num_threads: int
) -> Sequence[int]:
    """Refuses what cannot be iterated and returns the rows."""
    if len(source) == 0:
        raise ValueError(f"{source.name} is empty: there is no example to train on")
    if not 1 <= batch_size <= len(source):
        raise ValueError(
            f"batch_size is {batch_size}, but {source.name} has {len(source):,} examples;"
            f" it must lie in 1 .. {len(source)}, a batch never holds an example twice"
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}, it must not be negative")
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}, it must not be negative")
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}, it must be at least 1")
    if rows is None:
        return range(batch_size)
    if not len(rows) or min(rows) < 0 or max(rows) >= batch_size:
        raise ValueError(f"rows is {rows}, it must be some of the batch's rows 0 .. {batch_size - 1}")
    return rows
