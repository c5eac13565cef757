"""One line that says how far a run is: step, images/s, loss, time left."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .agreement import is_first

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to redraw a line on


class Report(Protocol):
    """Called with (step, loss, images per second) as often as one likes."""

    def __call__(self, step: int, loss: float, images_per_second: float) -> None:
        """Show one step."""


class Unread(io.TextIOBase):
    """A stream that nobody needs to be reading: once it cannot be written, what is written to it is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self.stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self.stream.flush()
        except OSError:
            self._drop()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return self.stream.encoding

    def _drop(self) -> None:
        # The descriptor itself, since what waits in the stream's buffer would fail again when the program ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextmanager
def unread_output() -> Iterator[None]:
    """Within, a closed standard output, such as a pipe whose reader has gone, ends nothing."""
    if sys.stdout is None:  # closed before the program began
        yield
        return
    with redirect_stdout(Unread(sys.stdout)):
        yield
        sys.stdout.flush()


def say(line: str) -> None:
    """Print a line, in the first of several processes."""
    if is_first():
        Console(soft_wrap=True).print(line, highlight=False, markup=False)


@contextmanager
def progress(*, first_step: int, steps: int) -> Iterator[Report]:
    """A live bar on a terminal, a line every ten seconds elsewhere; nothing in all but the first process."""
    if not is_first():
        yield lambda step, loss, images_per_second: None
        return
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
