"""Being asked to stop: SIGTERM, as a scheduler sends it before it takes the machine away, and Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopNow(BaseException):
    """Leaves what may be left at once; it is no Exception, so that nobody takes it for an error of his own."""


class Stop:
    """Whether the process was asked to stop.

    Attributes:
        requested: set by the first signal; a second one ends the process as usual, at once.
        may_leave: whether the signal may break into what is running, by StopNow.
        before: what signals did before `listen`, to be put back.
    """

    def __init__(self) -> None:
        self.requested = False
        self.may_leave = False
        self.before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """From now on the first signal is a request; until now it ended the process."""
        self.before = {each: signal.signal(each, self._answer) for each in SIGNALS}

    def _answer(self, number: int, frame: object) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.requested = True
        if self.may_leave:
            raise StopNow

    @contextmanager
    def leaving(self, allowed: bool) -> Iterator[None]:
        """A block that a request to stop leaves at once, if that is allowed: nothing in it is needed."""
        self.may_leave = allowed
        try:
            yield
        except StopNow:
            pass
        finally:
            self.may_leave = False


@contextmanager
def stop_on_request() -> Iterator[Stop]:
    """Once it listens, turn the first SIGTERM or Ctrl-C into a request that the loop answers with a checkpoint."""
    stop = Stop()
    try:
        yield stop
    finally:
        for each, was in stop.before.items():
            signal.signal(each, was)
