"""One line that says how far a run is: step, images/s, loss, time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to redraw a line on


class Report(Protocol):
    """Called with (step, loss, images per second) as often as one likes."""

    def __call__(self, step: int, loss: float, images_per_second: float) -> None:
        """Show one step."""


@contextmanager
def progress(*, first_step: int, steps: int) -> Iterator[Report]:
    """A live bar on a terminal, a line every ten seconds elsewhere."""
    console = Console()
    if console.is_terminal:
        columns = (
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=steps, completed=first_step, rate=0.0, loss=float("nan"))
            yield lambda step, loss, images_per_second: bar.update(
                task, completed=step, loss=loss, rate=images_per_second
            )
        return

    started = last = time.monotonic()

    def line(step: int, loss: float, images_per_second: float) -> None:
        nonlocal last
        now = time.monotonic()
        if step < steps and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (now - started) / max(step - first_step, 1) * (steps - step)
        console.print(
            f"step {step}/{steps}  {images_per_second:.0f} images/s  loss {loss:.4g}  {left:.0f} s left",
            highlight=False,
        )

    yield line
