"""Read NVIDIA's pickles, and files of `torch.save`, without torch: nothing that a file names is imported or called."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4"}


class _Nothing(dict):
    """Stands for every class and function that this reader does not know; takes what it is given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {})


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    strides = [storage.itemsize * step for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _storage(data: bytes) -> np.ndarray:
    """The legacy container of torch: three headers, a storage, a list of keys, then the numbers."""
    file = io.BytesIO(data)
    *_, (kind, dtype, key, _, length, *_), keys = (_Reader(file).load() for _ in range(5))
    assert kind == "storage"
    assert keys == [key]
    assert int.from_bytes(file.read(8), "little") == length
    return np.frombuffer(file.read(), DTYPES[dtype], count=length)


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): lambda record: record["state"],
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return name if module == "torch" and name in DTYPES else KNOWN.get((module, name), _Nothing)

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_tensors(path: Path, key: str = "ema") -> dict[str, np.ndarray]:
    """The tensors of one network in the file under their names in its state dict, buffers among them."""
    with path.open("rb") as file:
        module = _Reader(file).load()[key]
    tensors: dict[str, np.ndarray] = {}

    def collect(module: dict, prefix: str) -> None:
        for name, tensor in (module["_parameters"] | module["_buffers"]).items():
            if tensor is not None:
                tensors[prefix + name] = tensor
        for name, child in module["_modules"].items():
            if child is not None:
                collect(child, f"{prefix}{name}.")

    collect(module, "")
    return tensors


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict in the container of today's `torch.save`, a zip file."""
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))

        class Reader(_Reader):
            def persistent_load(self, pid: Any) -> Any:
                _, dtype, key, _, length = pid
                numbers = archive.read(index.replace("data.pkl", f"data/{key}"))
                return np.frombuffer(numbers, DTYPES[dtype], count=length)

        return dict(Reader(io.BytesIO(archive.read(index))).load())
