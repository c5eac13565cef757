"""Checkpoints of other programs as plain values: torch's files, old and new, NVIDIA's pickles, and safetensors.

Neither torch nor anything that a file names is imported. The numbers are not copied: arrays are views of what was read.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .stand_ins import DTYPES, KNOWN, STORAGES, TENSORS
from .unpickle import Globals, Stream, unpickle
from .values import LONGEST, Name, short

MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in a file of torch before 1.6
LEGACY_PROTOCOL = 1001
LOAD_FROM_BYTES = ("torch.storage", "_load_from_bytes")
LONGEST_HEADER = 100_000_000  # bytes, of safetensors: what starts with more is something else


def read(path: str | Path) -> Any:
    """Read a checkpoint. Its container is told by its bytes, not by its name.

    Args:
        path: a file of `torch.save` (`.pt`, `.pth`), a pickle of NVIDIA's programs (`.pkl`), or safetensors.

    Returns:
        What the file holds, of dicts, lists, numbers and text: of a state dict {name: array}. Arrays are numpy's with
        the file's dtype, those of bfloat16 with that of ml_dtypes, and cannot be written to. An object of a class that
        is not here, such as a module, is a `Record`; `state_dict` gives its arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is safetensors, and that package is not installed.
        ValueError: naming the file. It names something that is not on the list, it is cut off or has something left
            over, or a size that it declares is not that of what it has. Nothing was executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file:
        start = file.read(16)
    try:
        if start[:4] == b"PK\x03\x04":
            return _read_zip(path, size)
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
            return _read_safetensors(path)
        if start[:1] == b"\x80":
            # Of a file, reading as much as a length declares would first take so much memory.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _read_pickle(mapped, size)
    except ImportError:
        raise
    except Exception as error:  # of any kind: there is no end to what can be wrong with a file
        told = str(error)[: 5 * LONGEST] or type(error).__name__
        raise ValueError(f"{path}: not a checkpoint that can be read: {told}. Nothing in it was executed.") from error
    raise ValueError(f"{path}: neither a file of torch, nor a pickle, nor safetensors; it starts with {start!r}")


# ---- Containers ------------------------------------------------------------------------------------------------------


def _read_zip(path: Path, size: int) -> Any:
    """A file of torch since 1.6: a pickle, and each storage a member of its own. torch compresses none of them."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise ValueError("two members of the archive have one name")
        packed = [name for name, member in members.items() if not _is_stored(member)]
        if packed or sum(member.file_size for member in members.values()) > size:
            raise ValueError(f"the archive declares more than it holds, or is compressed or encrypted: {packed[:3]}")
        indices = [name for name in members if name.split("/")[-1] == "data.pkl"]
        if len(indices) != 1:
            raise ValueError(f"the archive has {len(indices)} members data.pkl, torch's have one")
        root = indices[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        if min(member.header_offset for member in members.values()) or not _ends_as_zip(path, size):
            raise ValueError("something lies before or after its archive")
        _refuse_overlaps(path, members.values(), archive.start_dir)
        storages: dict[str, np.ndarray] = {}

        def storage(pid: Any) -> np.ndarray:
            dtype, key, count = _described(pid)
            member = members.get(f"{root}data/{key}")
            if member is None or member.file_size != count * dtype.itemsize:
                held = "is missing" if member is None else f"has {member.file_size} bytes"
                raise ValueError(f"storage {key} of {count} numbers of {dtype} {held}")
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(member), dtype)
            return _of_dtype(storages[key], dtype, key)

        index = BytesIO(archive.read(indices[0]))
        value = unpickle(index, KNOWN, storage)
        unused = [name for name in members if name.startswith(f"{root}data/") and name[len(root) + 5 :] not in storages]
        if unused or index.read(1):
            raise ValueError(
                f"it holds more than it refers to: {unused[:3] or 'its pickle has a second one behind it'}"
            )
        return value


def _is_stored(member: zipfile.ZipInfo) -> bool:
    """Whether a member is its bytes and no more; bits of the flags would say that it is encrypted or a patch."""
    plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 0x61
    return plain and member.file_size == member.compress_size


def _refuse_overlaps(path: Path, members: Iterable[zipfile.ZipInfo], end: int) -> None:
    """Refuse members of which one lies within another: the same bytes would be read as two things."""
    with path.open("rb") as file:
        for member in sorted(members, key=lambda member: member.header_offset, reverse=True):
            file.seek(member.header_offset)
            head = file.read(30)
            data_at = member.header_offset + len(head) + sum(struct.unpack("<2H", head[26:]))
            if data_at + member.compress_size > end:
                raise ValueError(f"{short(member.filename)} of the archive lies in another member or beyond the end")
            end = member.header_offset


def _ends_as_zip(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        file.seek(size - 22)  # the last record of an archive without a comment, which torch's are
        return file.read(4) == b"PK\x05\x06"


def _read_pickle(stream: Stream, size: int) -> Any:
    """A bare pickle, or the several that torch wrote before 1.6."""
    known = {**KNOWN, LOAD_FROM_BYTES: _storage_of}
    first = unpickle(stream, known)
    if type(first) is int and first == MAGIC:
        return _read_legacy(stream, size, known)
    if stream.tell() != size:
        raise ValueError(f"{size - stream.tell():,} bytes are left over after its end")
    return first


def _storage_of(data: Any) -> np.ndarray:
    """A storage within a pickle, which is a whole file of the old kind. It holds no other."""
    if type(data) is not bytes:
        raise ValueError(f"a storage within it is {short(data)}")
    stream = BytesIO(data)
    if unpickle(stream, {}) != MAGIC:
        raise ValueError("a storage within it does not start as such")
    storage = _read_legacy(stream, len(data), STORAGES)
    if not isinstance(storage, np.ndarray):
        raise ValueError(f"a storage within it is {short(storage)}")
    return storage


def _read_legacy(stream: Stream, size: int, known: Globals) -> Any:
    """After the magic number: protocol, facts of the machine, the value, the keys of storages, then their numbers.

    The value comes before the numbers that its tensors are views of, so it is read twice: first for the storages that
    it declares.
    """
    if unpickle(stream, {}) != LEGACY_PROTOCOL:
        raise ValueError(f"its protocol is not {LEGACY_PROTOCOL}")
    if unpickle(stream, {}).get("little_endian") is not True:
        raise ValueError("its numbers are big-endian")
    value_at = stream.tell()
    declared: dict[str, tuple[np.dtype, int]] = {}

    def declare(pid: Any) -> None:
        dtype, key, count = _described(pid)
        if declared.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key} is declared in two ways")
        if count * dtype.itemsize > size:
            raise ValueError(f"storage {key} of {count} numbers of {dtype} is larger than the file")

    tensors: Globals = dict.fromkeys(TENSORS, lambda *_: None)
    unpickle(stream, {**known, **tensors}, declare)
    keys = unpickle(stream, {})
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(declared):
        raise ValueError(f"it declares the storages {short(sorted(declared))} and has {short(keys)}")
    storages = {}
    for key in keys:
        dtype, count = declared[key]
        head = stream.read(8)
        if len(head) != 8 or struct.unpack("<q", head) != (count,):
            raise ValueError(f"storage {key} does not have {count} numbers, or the file ends before it")
        data = stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise ValueError(f"it ends within storage {key}, of which there are {len(data)} bytes")
        storages[key] = np.frombuffer(data, dtype)
    end = stream.tell()
    if end != size:
        raise ValueError(f"{size - end:,} bytes are left over after its end")
    stream.seek(value_at)
    return unpickle(stream, known, lambda pid: storages[_described(pid)[1]])


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        safetensors = import_module("safetensors.numpy")
    except ModuleNotFoundError as error:
        raise ImportError(f"reading {path} needs the package safetensors: pip install safetensors") from error
    return safetensors.load_file(path)


def _described(pid: Any) -> tuple[np.dtype, str, int]:
    """(dtype, key, numbers) of a storage as torch refers to it."""
    if type(pid) is not tuple or not 5 <= len(pid) <= 6 or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise ValueError(f"it refers to {short(pid)}, which is no storage")
    _, storage, key, _, count, *_ = pid
    if type(storage) is not Name or storage.text not in DTYPES or type(key) is not str or len(key) > LONGEST:
        raise ValueError(f"it refers to a storage {short(key)} of {short(storage)}, which is none")
    if type(count) is not int or count < 0:
        raise ValueError(f"storage {key} has {short(count)} numbers")
    return DTYPES[storage.text], key, count


def _of_dtype(storage: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    if storage.dtype != dtype:
        raise ValueError(f"storage {key} is of {storage.dtype} and of {dtype}")
    return storage
