"""What the names in checkpoints of torch and of NVIDIA stand for: functions that make plain values, and views."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from .unpickle import Globals
from .values import Record, Unbuilt, plain_key, put, short

DTYPES: Mapping[str, np.dtype] = {
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
"""Of torch's storages, those whose numbers numpy has."""

PERSISTENCE_VERSION = 6  # of NVIDIA's records, the only one that was published
MOST_AXES = 32  # of an array; of numpy's, which depend on its version, the fewest


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A view of a storage, which it must lie within; no memory is taken.

    Raises:
        ValueError: it reaches beyond its storage, or has more elements than that.
    """
    # A tensor is an array as well, which may have its numbers in less memory than their count says.
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or not storage.flags.c_contiguous:
        raise ValueError(f"a tensor lies in {short(storage)}, which is no storage")
    if not (_are_sizes((offset,)) and _are_sizes(size) and _are_sizes(stride) and len(size) == len(stride)):
        raise ValueError(f"a tensor has offset {short(offset)}, size {short(size)} and stride {short(stride)}")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset
    if count > storage.size or last > storage.size - (count > 0):
        raise ValueError(f"a tensor of size {size}, stride {stride} at {offset} is outside its {storage.size} numbers")
    strides = [storage.itemsize * step for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def parameter(data: Any, *_: Any) -> Any:
    """The tensor of a parameter."""
    return data


def size(numbers: Any = ()) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        ValueError: it is no short tuple or list of numbers.
    """
    if not _are_sizes(numbers):
        raise ValueError(f"it has {short(numbers)} for the size of a tensor")
    return tuple(numbers)


def dictionary(items: Any = ()) -> dict[Any, Any]:
    """A dict of its own from another, or from pairs as Python 2 writes them.

    Raises:
        ValueError: it is neither.
    """
    if type(items) not in (dict, tuple, list):
        raise ValueError(f"it makes a dict of {short(items)}")
    made: dict[Any, Any] = {}
    put(made, items.items() if type(items) is dict else items)
    return made


def plain_set(items: Any = ()) -> set[Any]:
    """A set of plain values.

    Raises:
        ValueError: it is made of something else than a list of them.
    """
    if type(items) not in (tuple, list):
        raise ValueError(f"it makes a set of {short(items)}")
    return set(map(plain_key, items))


def persistent_record(meta: Any) -> Record:
    """NVIDIA's record of an object: its class and attributes. The source code in it is not even kept.

    Raises:
        ValueError: it is not of the kind and version that were published.
    """
    facts = {name: meta.get(name) for name in ("type", "version", "class_name")} if type(meta) is dict else {}
    if facts.get("type") != "class" or facts["version"] != PERSISTENCE_VERSION or type(facts["class_name"]) is not str:
        told = ", ".join(f"{name} {short(value)}" for name, value in facts.items()) or short(meta)
        raise ValueError(f"a record of {told} is not known")
    return Record(facts["class_name"], (), meta["state"])


def latin1(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for a reader in Python 2.

    Raises:
        ValueError: it is another encoding, or no text.
    """
    if encoding != "latin1" or type(text) is not str:
        raise ValueError(f"it encodes {short(text)} as {short(encoding)}")
    return text.encode("latin1")


def unbuilt_array(*_: Any) -> Unbuilt:
    """An array of numpy, which its file makes empty first: nothing until its state is given."""
    return Unbuilt(array_of)


def array_of(state: Any) -> np.ndarray:
    """An array of numpy as a view of bytes.

    Raises:
        ValueError: it is not of plain numbers, or of a shape with more or fewer of them than there are.
    """
    if type(state) is not tuple or len(state) != 5:
        raise ValueError(f"it has an array of state {short(state)}, which is not numpy's")
    _, shape, dtype, fortran, data = state
    numbers = dtype_of(dtype)
    if type(shape) is not tuple or not _are_sizes(shape) or type(data) is not bytes or type(fortran) is not bool:
        raise ValueError(f"it has an array of shape {short(shape)} in {short(data)}, order {short(fortran)}")
    if math.prod(shape) * numbers.itemsize != len(data):
        raise ValueError(f"it has an array of shape {shape} in other than as many numbers")
    return np.frombuffer(data, numbers).reshape(shape, order="F" if fortran else "C")


def dtype_of(dtype: Any) -> np.dtype:
    """A dtype of numpy by its code and byte order.

    Raises:
        ValueError: it is not of plain numbers in this byte order.
    """
    if type(dtype) is not Record or dtype.name != "numpy.dtype":
        raise ValueError(f"it has an array of dtype {short(dtype)}")
    code = dtype.arguments[0] if dtype.arguments else None
    state = (3, "|") if dtype.state is None else dtype.state
    order = state[1] if type(state) is tuple and len(state) > 1 else None
    if type(code) is not str or not re.fullmatch(r"b1|[iu][1248]|f[248]", code) or order not in ("<", "|", "="):
        raise ValueError(f"it has an array of dtype {short(code)}, byte order {short(order)}")
    return np.dtype(code)


def scalar(dtype: Any, data: Any) -> bool | int | float:
    """A number of numpy as one of Python.

    Raises:
        ValueError: it is of another dtype than plain numbers, or not one number.
    """
    numbers = dtype_of(dtype)
    if type(data) is not bytes or len(data) != numbers.itemsize:
        raise ValueError(f"it has a number of {numbers} in {short(data)}")
    return np.frombuffer(data, numbers)[0].item()


def _are_sizes(numbers: Any) -> bool:
    few = type(numbers) in (tuple, list) and len(numbers) <= MOST_AXES
    return few and all(type(number) is int and 0 <= number < 2**62 for number in numbers)


STORAGES: Globals = {("torch", name.removeprefix("torch.")): None for name in DTYPES}
TENSORS = (("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"))

KNOWN: Globals = {
    ("collections", "OrderedDict"): dictionary,
    ("dnnlib.util", "EasyDict"): dictionary,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
    ("_codecs", "encode"): latin1,
    ("torch", "Size"): size,
    **STORAGES,
    **dict.fromkeys(TENSORS, tensor),
    ("torch._utils", "_rebuild_parameter"): parameter,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent_record,
    ("numpy", "dtype"): lambda *arguments: Record("numpy.dtype", arguments),
    ("numpy", "ndarray"): None,  # only ever an argument
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): unbuilt_array for core in ("core", "_core")},
}
"""What stands for the names in checkpoints of torch and of NVIDIA; `torch.storage._load_from_bytes` is the reader's."""
