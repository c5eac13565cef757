"""What a path of foreign weights holds, in however many files its program keeps them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .modules import state_dict
from .reader import read
from .values import Record

SETTINGS, AUTOENCODER = "config.json", "diffusion_pytorch_model.safetensors"
LPIPS_FILES: Mapping[str, tuple[str, str]] = {
    "vgg16": ("vgg16-397923af.pth", "vgg.pth"),
    "alexnet": ("alexnet-owt-7be5be79.pth", "alex.pth"),
}
"""Of each trunk torchvision's file, and that of the `lpips` package with the weights of its layers."""


def files_of(path: str | Path) -> tuple[Path, ...]:
    """The files that a path stands for: itself, or those in a folder that belong together.

    Raises:
        FileNotFoundError: there is no such path, or a folder has neither LPIPS's two files nor diffusers'.
        ValueError: a folder has those of LPIPS for both trunks.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return (path,)
    trunks = [name for name, (trunk, _) in LPIPS_FILES.items() if (path / trunk).is_file()]
    if len(trunks) > 1:
        raise ValueError(f"{path} has the trunks {' and '.join(trunks)}; give a folder of one of them")
    if trunks:
        return lpips_files(path, trunks[0])
    if (path / SETTINGS).is_file() and (path / AUTOENCODER).is_file():
        return path / AUTOENCODER, path / SETTINGS
    pairs = [*LPIPS_FILES.values(), (SETTINGS, AUTOENCODER)]
    raise FileNotFoundError(
        f"{path} has neither of {', '.join(' with '.join(pair) for pair in pairs)}, nor was anything converted there"
    )


def lpips_files(folder: Path, trunk: str) -> tuple[Path, Path]:
    """Torchvision's trunk and the weights of the layers in a folder.

    Raises:
        FileNotFoundError: saying where the one that is missing is from.
    """
    found = tuple(folder / name for name in LPIPS_FILES[trunk])
    for path, source in zip(found, ("torchvision", "the lpips package, in lpips/weights/v0.1"), strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.name}, which is a file of {source}")
    return found[0], found[1]


def contents(path: str | Path) -> Any:
    """What `read` gives of these files: of an npz file its arrays, of a module its tensors, of LPIPS's all in one.

    A folder of diffusers gives {"config": settings, "tensors": tensors}.

    Raises:
        FileNotFoundError: what `files_of` does not find.
        ImportError: it is safetensors, and that package is not installed.
        ValueError: naming a file that cannot be read, or a program of TorchScript.
    """
    files = files_of(path)
    if files[-1].name == SETTINGS:
        return {"config": json.loads(files[1].read_text()), "tensors": read(files[0])}
    if len(files) == 1:
        return _content(files[0])
    return {name: tensor for file in files for name, tensor in tensors_in(file).items()}


def tensors_in(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file by their names: a state dict, a module of NVIDIA's, or an npz file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    found = _content(Path(path))
    if not isinstance(found, dict) or not all(hasattr(value, "shape") for value in found.values()):
        raise ValueError(f"{path}: expected a state dict, tensors by their names")
    return found


def sha256_of(files: Iterable[Path]) -> str:
    """Of the bytes of a file; of several joined by a plus."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return "+".join(digests)


def _content(path: Path) -> Any:
    if path.suffix == ".npz":
        return _arrays(path)
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("code" in Path(name).parts[1:2] for name in archive.namelist()):
                raise ValueError(
                    f"{path} is TorchScript, a program with its weights, which is not run here. Give a file of weights:"
                    " of Inception pytorch-fid's pt_inception-2015-12-05-6726825d.pth or NVIDIA's"
                    " inception-2015-12-05.pkl, of VGG16 torchvision's vgg16-397923af.pth"
                )
    found = read(path)
    try:
        return state_dict(found) if isinstance(found, Record) else found
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable npz file of plain arrays: {error}") from error
