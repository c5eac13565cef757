"""Plain arrays in npz files: nothing is unpickled, nothing is overwritten unasked."""

import os
from pathlib import Path
from typing import Any

import numpy as np


def read_npz(path: str | Path, *names: str) -> dict[str, np.ndarray]:
    """All arrays of an npz file, or those of these names that it has, never unpickling.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an npz file, or it holds Python objects, or unpacks to more than this machine's memory.
    """
    with Path(path).open("rb") as file:
        if file.read(2) != b"PK":
            raise ValueError(f"{path} is no npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = [name for name in file.files if not names or name in names]
            members = {member.filename.removesuffix(".npy"): member.file_size for member in file.zip.infolist()}
            size = sum(members[name] for name in wanted)
            if size > memory():
                raise ValueError(f"it unpacks to {size:,} bytes, more than the memory of this machine, {memory():,}")
            return {name: file[name] for name in wanted}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable npz file of plain arrays: {error}") from error


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def write_npz(path: str | Path, *, overwrite: bool, **arrays: Any) -> None:
    """Write an npz file beside its place and then move it there.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
        ValueError: the name does not end in .npz.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: the name must end in .npz")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; ask to overwrite it, or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez(temporary, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
