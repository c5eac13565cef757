"""Checkpoints in the containers of torch and of NVIDIA, written opcode by opcode, since torch is not here."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.bool_): "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C


def plain(value) -> bytes:
    """Opcodes of a value of Python's own types."""
    return pickle.dumps(value, 2)[2:-1]


def named(module: str, name: str) -> bytes:
    """Opcodes of a global."""
    return f"c{module}\n{name}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + tuple_of(*arguments) + b"R"


def dict_of(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(plain(name) + value for name, value in items.items()) + b"u"


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def storage(key: str, dtype, count: int, *view: bytes) -> bytes:
    """Opcodes that refer to a storage elsewhere in the file."""
    kind = named("torch", STORAGES[np.dtype(dtype)])
    return tuple_of(plain("storage"), kind, plain(key), plain("cuda:0"), plain(count), *view) + b"Q"


def tensor(of: bytes, shape, stride, offset=0, function="_rebuild_tensor_v2") -> bytes:
    """Opcodes of a view of a storage."""
    hooks = [plain(False), call("collections", "OrderedDict")] if function.endswith("v2") else []
    return call("torch._utils", function, of, plain(offset), plain(tuple(shape)), plain(tuple(stride)), *hooks)


def whole(of: bytes, array: np.ndarray, **options) -> bytes:
    """Opcodes of a tensor that is all of its storage."""
    stride = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
    return tensor(of, array.shape, stride, **options)


def write_zip(path: Path, value: bytes, storages: dict[str, np.ndarray], compression=zipfile.ZIP_STORED) -> Path:
    """A file of torch since 1.6."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(value))
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_state_dict(path: Path, arrays: dict[str, np.ndarray], wrap=lambda value: value) -> Path:
    """The same of a state dict, or of something with a state dict in it."""
    keys = {name: str(i) for i, name in enumerate(arrays)}
    tensors = {name: whole(storage(keys[name], a.dtype, a.size), a) for name, a in arrays.items()}
    # torch's state dicts have an attribute as well.
    value = dict_of(tensors).replace(b"}", call("collections", "OrderedDict"), 1)
    value += dict_of({"_metadata": call("collections", "OrderedDict")}) + b"b"
    return write_zip(path, wrap(value), {keys[name]: a for name, a in arrays.items()})


def legacy(value: bytes, storages: dict[str, np.ndarray], little_endian=True) -> bytes:
    """A file of torch before 1.6."""
    facts = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    file = io.BytesIO()
    for part in (plain(MAGIC), plain(1001), plain(facts), value, plain(list(storages))):
        file.write(program(part))
    for array in storages.values():
        file.write(struct.pack("<q", array.size) + array.tobytes())
    return file.getvalue()


def nested(array: np.ndarray) -> bytes:
    """Opcodes of a tensor whose storage lies in the pickle itself, as in NVIDIA's."""
    of = storage("7", array.dtype, array.size, plain(None))
    held = pickle.dumps(legacy(of, {"7": array}), 4)[11:-2]  # without the frame, which is that of another pickle
    return whole(call("torch.storage", "_load_from_bytes", held), array)


def module(name: str, parameters=None, buffers=None, modules=None, **attributes) -> bytes:
    """Opcodes of NVIDIA's record of a module."""
    state = {
        "_parameters": dict_of({name: nested(array) for name, array in (parameters or {}).items()}),
        "_buffers": dict_of({name: nested(array) for name, array in (buffers or {}).items()}),
        "_non_persistent_buffers_set": call("__builtin__", "set", plain([])),
        "_modules": dict_of(modules or {}),
        **{name: plain(value) for name, value in attributes.items()},
    }
    meta = {"type": plain("class"), "version": plain(6), "module_src": plain(""), "class_name": plain(name)}
    return call("torch_utils.persistence", "_reconstruct_persistent_obj", dict_of({**meta, "state": dict_of(state)}))


def write_pickle(path: Path, value: bytes) -> Path:
    path.write_bytes(program(value))
    return path
