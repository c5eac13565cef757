"""Weights of published feature networks: where they are from, how they are known to be right, where they are kept."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError


class WeightFile(NamedTuple):
    """A published file.

    Attributes:
        name: of the file in the cache.
        url: where its authors keep it.
        sha256: of its bytes, or how that begins; empty if no source that we know states it.
        what: what it holds.
    """

    name: str
    url: str
    sha256: str
    what: str


# Torch's hub names a file by the first eight digits of its sha256.
INCEPTION = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
    "Inception-v3 of 2015, pytorch-fid's file",
)
INCEPTION_TORCH_FIDELITY = WeightFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
    "the same from torch-fidelity",
)
INCEPTION_OPENAI = WeightFile(
    "inception-2015-12-05.openai.pt",
    "https://openaipublic.blob.core.windows.net/consistency/inception/inception-2015-12-05.pt",
    "",
    "the same without the scales of its normalisations, which are 1",
)
# Not NVIDIA's inception-2015-12-05.pt, whose digest is known: it is TorchScript, code that is not run here.
INCEPTION_NVIDIA = WeightFile(
    "inception-2015-12-05.pkl",
    "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics/inception-2015-12-05.pkl",
    "",
    "the same as a module of EDM and EDM2",
)
DINOV2 = WeightFile(
    "dinov2_vitl14_pretrain.pth",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "",
    "DINOv2 ViT-L/14",
)
VGG16 = WeightFile(
    "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af", "trunk of LPIPS"
)
ALEXNET = WeightFile(
    "alexnet-owt-7be5be79.pth",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "7be5be79",
    "the other trunk of LPIPS",
)
LPIPS_VGG16 = WeightFile(
    "vgg.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "LPIPS's layers with VGG16, from the lpips package",
)
LPIPS_ALEXNET = WeightFile(
    "alex.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "LPIPS's layers with AlexNet, from the lpips package",
)
WEIGHTS = (
    INCEPTION,
    INCEPTION_TORCH_FIDELITY,
    INCEPTION_OPENAI,
    INCEPTION_NVIDIA,
    DINOV2,
    VGG16,
    LPIPS_VGG16,
    ALEXNET,
    LPIPS_ALEXNET,
)


def weights_folder() -> Path:
    """Where files are kept: fewstep/weights in $XDG_CACHE_HOME, or in ~/.cache; it can be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fewstep" / "weights"


def find_weights(file: WeightFile, path: str | Path | None = None, *, folder: Path | None = None) -> Path:
    """The path of a weight file: the one given, or the kept one, or the published one, which is then fetched and kept.

    A file that is given is taken as it is: it may be of other weights, and the sha256 in the rows says so. Instead of a
    path the name of another one of `WEIGHTS` can be given, which is then found in this way.

    Args:
        file: which one.
        path: where the user has it, a file or a folder; or a name.
        folder: where files are kept; `weights_folder()` if None.

    Raises:
        FileNotFoundError: it is neither given nor kept and cannot be fetched; says the URL and where to put it.
        ValueError: what was fetched or kept has another sha256.
    """
    if path is not None and Path(path).exists():
        return Path(path)
    if path is not None:
        named = [other for other in WEIGHTS if other.name == str(path)]
        if not named:
            raise FileNotFoundError(f"{path}: no such file of weights, expected {file.what}, from {file.url}")
        (file,) = named
    kept = (folder or weights_folder()) / file.name
    if not kept.is_file():
        _fetch(file, kept)
    _check(file, kept)
    return kept


def file_sha256(path: str | Path) -> str:
    """Of the bytes of a file."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch(file: WeightFile, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=kept.parent)
    unfinished = Path(name)
    try:
        with open(handle, "wb") as out, urllib.request.urlopen(file.url) as response:
            shutil.copyfileobj(response, out)
        _check(file, unfinished)
        unfinished.replace(kept)  # whole or not at all
    except (URLError, OSError) as error:
        raise FileNotFoundError(
            f"{file.name} ({file.what}) is not here and could not be fetched from {file.url}: {error}. "
            f"Fetch it elsewhere and put it at {kept}, or give its path with --weights"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _check(file: WeightFile, path: Path) -> None:
    found = file_sha256(path)
    if not found.startswith(file.sha256):
        raise ValueError(
            f"{path}: sha256 is {found}, but that of {file.name} from {file.url} begins with {file.sha256}; "
            "delete the file, or give another with --weights"
        )
