"""Weights of LPIPS: a trunk as torchvision stores it, and the weights of the layers as the `lpips` package does.

`vgg16-397923af.pth` and `alexnet-owt-7be5be79.pth` are torchvision's; `vgg.pth` and `alex.pth` come with the package,
in `lpips/weights/v0.1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32

from ..alexnet import LAYERS, AlexNet
from ..alexnet import lpips_features as alexnet_features
from ..vgg import STAGES, VGG, Convolution
from ..vgg import lpips_features as vgg_features
from .contents import lpips_files, sha256_of, tensors_in
from .converted import Converted, Family, Settings
from .folder import is_converted, read_description, read_parameters, source_sha256
from .layouts import Layout, Place, Stored, StoredAt, Tensors, outputs_first, same
from .tensors import by_name, params_of

Weights: TypeAlias = tuple[Float32[Array, " channels"], ...]
"""One number for each channel of each layer, not negative."""


PRINTED = {"vgg16": "VGG16", "alexnet": "AlexNet"}
channels_of_pixels = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(1, -1, 1, 1))
SIZES = {
    "vgg16": tuple((number, channels, new, 3) for stage in STAGES for number, channels, new in stage),
    "alexnet": LAYERS,
}
"""Of a trunk's convolutions: number in torchvision's list, channels, new channels, side of the window."""
CHANNELS = {
    "vgg16": tuple(stage[-1][-1] for stage in STAGES),
    "alexnet": tuple(layer.new_channels for layer in LAYERS),
}
"""Of the layers that LPIPS weights."""
CLASSIFIER = "classifier."


def vgg(trunk: Tensors, linear: Tensors) -> tuple[VGG, Weights]:
    """The trunk of VGG16 and the weights of its five layers.

    Args:
        trunk: `features.0.weight` and so on; the classifier may be there too.
        linear: `lin0.model.1.weight` and so on, [1, channels, 1, 1], or `lin0`, [channels].

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite, all of which are listed; or a
            weight of a layer is negative.
    """
    return _vgg(_trunk(trunk, "vgg16")), _in_order(_layers(linear, "vgg16"))


def alexnet(trunk: Tensors, linear: Tensors) -> tuple[AlexNet, Weights]:
    """The same of AlexNet."""
    return _alexnet(_trunk(trunk, "alexnet")), _in_order(_layers(linear, "alexnet"))


def read_lpips(path: str | Path) -> tuple[VGG, Weights]:
    """Read VGG16's trunk and the weights of its layers: a folder with the two files, or one npz file of both.

    The folder can also be one that they were converted to.

    Raises:
        FileNotFoundError: no such file, or one of a folder's is missing.
        ValueError: a file cannot be read; a folder is of something else; or what `vgg` refuses.
    """
    if is_converted(path):
        description = read_description(path, ["lpips"])
        network = description["settings"]["network"]
        if network["trunk"] != "vgg16" or network["layers"] is None:
            held = f"{PRINTED[network['trunk']]} {'alone' if network['layers'] is None else 'and its layers'}"
            raise ValueError(f"{path} has {held}; LPIPS is taken here of VGG16 and its layers")
        params = read_parameters(path, description)
        return _vgg(params["features"]), _in_order(params["layers"])
    tensors = {name: tensor for file in vgg_files(path) for name, tensor in tensors_in(file).items()}
    try:
        return vgg(*_parted(tensors))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def lpips_sha256(path: str | Path) -> str:
    """Of the files that `read_lpips` reads; of a folder that they were converted to that of the files before."""
    return source_sha256(path) if is_converted(path) else sha256_of(vgg_files(path))


def vgg_files(path: str | Path) -> tuple[Path, ...]:
    """The files that `read_lpips` reads.

    Raises:
        FileNotFoundError: one of a folder's is missing.
    """
    path = Path(path).expanduser()
    return lpips_files(path, "vgg16") if path.is_dir() else (path,)


def _parted(tensors: Tensors) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trunk, and the weights of the layers."""
    linear = {name: tensor for name, tensor in tensors.items() if name.startswith("lin")}
    return {name: tensor for name, tensor in tensors.items() if name not in linear}, linear


def _trunk(tensors: Tensors, trunk: str) -> dict[str, Any]:
    shapes = {
        str(number): {"kernel": _shape(size, size, channels, new_channels), "bias": _shape(new_channels)}
        for number, channels, new_channels, size in SIZES[trunk]
    }
    stored, what = by_name(lambda place: (_trunk_name(*place),)), f"{PRINTED[trunk]}'s trunk"
    return cast(
        dict[str, Any], params_of(shapes, tensors, stored, {}, what, unused=lambda name: name.startswith(CLASSIFIER))
    )


def _trunk_name(number: str, kind: str) -> str:
    return f"features.{number}.{'weight' if kind == 'kernel' else 'bias'}"


def _layers(tensors: Tensors, trunk: str) -> dict[str, Any]:
    ending, what = _ending(tensors), f"LPIPS's layers with {PRINTED[trunk]}"
    shapes = {f"lin{i}": _shape(size) for i, size in enumerate(CHANNELS[trunk])}
    found = params_of(shapes, tensors, by_name(lambda place: (place[0] + ending,)), {}, what, ones=True)
    negative = [name for name in shapes if (found[name] < 0).any()]
    if negative:
        raise ValueError(f"these are not the tensors of {what}: {', '.join(negative)} hold negative numbers")
    return cast(dict[str, Any], found)


def _ending(tensors: Tensors) -> str:
    return "" if "lin0" in tensors else ".model.1.weight"


def _vgg(trunk: Mapping[str, Any]) -> VGG:
    return tuple(tuple(Convolution(**trunk[str(number)]) for number, *_ in stage) for stage in STAGES)


def _alexnet(trunk: Mapping[str, Any]) -> AlexNet:
    return tuple(Convolution(**trunk[str(layer.number)]) for layer in LAYERS)


def _in_order(layers: Mapping[str, Any]) -> Weights:
    return tuple(layers[f"lin{i}"] for i in range(len(layers)))


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)


# ---- As a converted checkpoint ---------------------------------------------------------------------------------------


def convert(content: Any) -> Converted:
    """A trunk of torchvision, alone or with the weights of LPIPS's layers.

    Raises:
        ValueError: what `vgg` refuses.
    """
    features, linear = _parted(content)
    trunk = "alexnet" if features["features.0.weight"].shape[-1] == LAYERS[0].size else "vgg16"
    settings: Settings = {
        "network": {"trunk": trunk, "layers": _ending(linear) if linear else None},
        "left_out": [name for name in features if name.startswith(CLASSIFIER)],
    }
    params = {"features": _trunk(features, trunk)} | ({"layers": _layers(linear, trunk)} if linear else {})
    return Converted("lpips", settings, build(settings), params)


def build(settings: Settings) -> Callable[..., Any]:
    """What makes features of a trunk's parameters."""
    return alexnet_features if settings["network"]["trunk"] == "alexnet" else vgg_features


def recognises(content: Any) -> bool:
    """Whether this is a trunk of torchvision."""
    return "features.0.weight" in content


def _stored_at(settings: Settings) -> StoredAt:
    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        part, *inside = place
        if part == "features":
            return Stored(_trunk_name(*inside), outputs_first if inside[-1] == "kernel" else same)
        ending = settings["network"]["layers"]
        return Stored(inside[0] + ending, channels_of_pixels if ending else same)

    return of


FAMILY = Family(
    recognises,
    convert,
    build,
    _stored_at,
    lambda settings: {},
    "--weights, with --features lpips_vgg, or --config.lpips, if it is VGG16 with its layers",
)
