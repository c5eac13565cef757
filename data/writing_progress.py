"""How far a pass is that fills a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to redraw a line on


@contextmanager
def progress(what: str, *, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A live bar on a terminal's stderr, a line every ten seconds elsewhere: what is made, rate, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, started, made = Console(stderr=True), time.monotonic(), 0

    def rate() -> float:
        return made / max(time.monotonic() - started, 1e-9)

    if console.is_terminal:
        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} a second"),
        )
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("", total=total, completed=done, rate=0.0)

            def advance(count: int) -> None:
                nonlocal made
                made += count
                bar.update(task, completed=done + made, rate=rate())

            yield advance
        return

    last = started

    def line(count: int) -> None:
        nonlocal made, last
        made += count
        if done + made < total and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        left = (total - done - made) / max(rate(), 1e-9)
        told = f"{what} {done + made:,}/{total:,}  {rate():.0f} a second  {left:.0f} s left"
        console.print(told, highlight=False, soft_wrap=True)

    yield line
