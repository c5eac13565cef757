"""A pickle as plain values: whatever it names is looked up in a list here, and nothing of the file is executed."""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import IO, Any, NamedTuple, TypeAlias, cast

import jax.numpy as jnp
import numpy as np

Globals: TypeAlias = Mapping[tuple[str, str], Any]

Stream: TypeAlias = BytesIO | mmap.mmap
"""Something in memory, of which reading too much gives what there is, and takes no more memory than that."""


class Storage(NamedTuple):
    """A type of torch's storages by that of its numbers."""

    dtype: np.dtype


DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""Of torch's storages, those whose numbers numpy has."""

# Kept as a name with what the file says of it. `getattr` is that of the loss in ECT's snapshots: a method of an
# object, which is never asked for.
INERT = {("argparse", "Namespace"), ("builtins", "getattr"), ("__builtin__", "getattr"), ("torch", "device")}
INERT |= {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8", "bool")}

PERSISTENCE_VERSION = 6  # of NVIDIA's records, the only one that was published


class Record:
    """What a file says of an object whose class this reader does not have.

    Attributes:
        name: the class, or the function that would make the object; of NVIDIA's records the class alone.
        arguments: what it would be called with.
        state: the object's attributes, mostly a dict; None if the file gives none.
    """

    name: str = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **keywords: Any) -> Record:
        """Keep the arguments; an unpickler also makes objects without a call of `__init__`."""
        record = object.__new__(cls)
        record.arguments = (*arguments, keywords) if keywords else arguments
        record.state = None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"Record({self.name})"


def unpickle(stream: Stream, known: Globals, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read one pickle from a stream, and leave the stream behind it.

    Lengths that the pickle declares are compared with what there is before anything is made of it.

    Args:
        stream: from where it stands.
        known: {(module, name): what stands for it}, besides the names of this file.
        persistent: what stands for a persistent id, such as a storage that lies elsewhere in the file.

    Raises:
        Exception: of any kind, as there is no end to what can be wrong with a file; nothing was executed.
    """
    start = stream.tell()
    for position, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
        if opcode.name.startswith("EXT"):
            raise ValueError(f"it uses the extension code {argument}, which could stand for anything")
        if opcode.name.endswith("PUT") and (argument is None or argument > position):
            raise ValueError(f"it declares {argument} remembered values after {position} steps")
    stream.seek(start)
    return _Unpickler(stream, known, persistent).load()


class _Unpickler(pickle.Unpickler):
    """The interpreter of Python with the two functions replaced by which it reaches the outside."""

    def __init__(self, stream: Stream, known: Globals, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(stream)
        self._known, self._persistent = known, persistent

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        if module == "torch" and name in DTYPES:
            return Storage(DTYPES[name])
        if (module, name) in INERT or re.fullmatch(r"torch\.nn\.modules(\.\w+)*", module):
            return type("Record", (Record,), {"name": f"{module}.{name}"})
        raise ValueError(f"it names {module}.{name}, which is not on the list of what may be in a checkpoint")

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise ValueError("it refers to something outside of itself")
        return self._persistent(pid)


# ---- What the names of the list stand for ----------------------------------------------------------------------------


def tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """A view of a storage, which it must lie within; no memory is taken.

    Raises:
        ValueError: it reaches beyond its storage, or has more elements than that.
    """
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError(f"a tensor lies in {storage!r}, which is no storage")
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
        raise ValueError(f"a tensor has offset {offset}, size {size} and stride {stride}")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset
    if count > storage.size or last > storage.size - (count > 0):
        raise ValueError(f"a tensor of size {size}, stride {stride} at {offset} is outside its {storage.size} numbers")
    strides = [storage.itemsize * step for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def persistent_record(meta: Any) -> Record:
    """NVIDIA's record of an object: its class and attributes. The source code in it is not even kept."""
    if meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise ValueError(f"a record of type {meta.get('type')!r}, version {meta.get('version')!r} is not known")
    record: Record = type("Record", (Record,), {"name": str(meta["class_name"])})()
    record.state = meta["state"]
    return record


def latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for a reader in Python 2."""
    if encoding != "latin1":
        raise ValueError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


class Inert:
    """A function of this file as a pickle is given it: to be called, and for nothing else.

    Of a bare function a pickle could set attributes, and there are some by which that would change what it does.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it gives attributes to a function")


class Dict(dict):
    """A dict whose attributes are not kept; torch has the versions of modules in one."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype(Record):
    """A numpy dtype by its code and byte order, of which only plain numbers are taken."""

    def numpy(self) -> np.dtype:
        (code, *_), order = self.arguments, (self.state or (3, "|"))[1]
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", str(code)) or order not in ("<", "|", "="):
            raise ValueError(f"it has an array of dtype {code!r}, byte order {order!r}")
        return np.dtype(str(code))


class _Array(np.ndarray):
    """A numpy array, empty until its state is given."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes) or math.prod(shape) * dtype.numpy().itemsize != len(data):
            raise ValueError(f"it has an array of shape {shape} in other than as many numbers")
        super().__setstate__((1, shape, dtype.numpy(), fortran, data))


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,))


def _scalar(dtype: _Dtype, data: bytes) -> bool | int | float:
    (number,) = np.frombuffer(data, dtype.numpy())
    return number.item()


TENSORS = (("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"))

KNOWN: Globals = {
    ("collections", "OrderedDict"): Dict,
    ("dnnlib.util", "EasyDict"): Dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): Inert(latin1),
    ("torch", "Size"): tuple,
    **dict.fromkeys(TENSORS, Inert(tensor)),
    ("torch._utils", "_rebuild_parameter"): Inert(lambda data, *_: data),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Inert(persistent_record),
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "scalar"): Inert(_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Inert(_empty_array) for core in ("core", "_core")},
}
"""What stands for the names in checkpoints of torch and of NVIDIA; `torch.storage._load_from_bytes` is the reader's."""
