"""One run at a time in a folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .agreement import gather_texts, is_first, on_first
from .refusal import Refused

FILE = ".lock"
SECONDS_TO_APPEAR = 30.0


@contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Create the folder and keep other runs out of it. The lock goes with the process, however that ends.

    Of several processes the first one holds it. A file system without locks, as some network ones are, gives none.

    Raises:
        Refused: another run has it; says which process on which machine.
        OSError: the folder cannot be created or written.
    """
    held: list[int] = []
    on_first(lambda: held.append(_take(workdir)))
    try:
        _check_shared(workdir)
        yield
    finally:
        if is_first():
            os.close(held[0])


def _check_shared(workdir: Path) -> None:
    """All processes must see the folder that the first one has made; a network file system may take a moment."""
    end = time.monotonic() + SECONDS_TO_APPEAR
    while not (workdir / FILE).exists() and time.monotonic() < end:
        time.sleep(0.2)
    seen = gather_texts("seen" if (workdir / FILE).exists() else "")
    if missing := [str(index) for index, text in enumerate(seen) if not text]:
        raise Refused(
            f"--workdir {workdir} of process 0 is not there in process {', '.join(missing)}; it must be on a file "
            "system that all of them share"
        )


def _take(workdir: Path) -> int:
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / FILE
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, 200).decode(errors="replace").strip()
        os.close(file)
        raise Refused(
            f"{workdir} is in use by another run ({owner or 'it does not say which'}); wait for it, end it, or choose "
            "another --workdir"
        ) from None
    except OSError:
        return file
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file
