"""Weights of LPIPS: a trunk as torchvision stores it, and the weights of the layers as the `lpips` package does.

`vgg16-397923af.pth` and `alexnet-owt-7be5be79.pth` are torchvision's; `vgg.pth` and `alex.pth` come with the package,
in `lpips/weights/v0.1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
from jax import Array
from jaxtyping import Float32

from ..alexnet import LAYERS, AlexNet
from ..vgg import STAGES, VGG, Convolution
from .contents import lpips_files, tensors_in
from .layouts import Place, Tensors
from .tensors import by_name, params_of

Weights: TypeAlias = tuple[Float32[Array, " channels"], ...]
"""One number for each channel of each layer, not negative."""


def vgg(trunk: Tensors, linear: Tensors) -> tuple[VGG, Weights]:
    """The trunk of VGG16 and the weights of its five layers.

    Args:
        trunk: `features.0.weight` and so on; the classifier may be there too.
        linear: `lin0.model.1.weight` and so on, [1, channels, 1, 1], or `lin0`, [channels].

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite, all of which are listed; or a
            weight of a layer is negative.
    """
    sizes = [(number, channels, new_channels, 3) for stage in STAGES for number, channels, new_channels in stage]
    layers = iter(_trunk(trunk, sizes, "VGG16's trunk"))
    return (
        tuple(tuple(next(layers) for _ in stage) for stage in STAGES),
        _weights(linear, [stage[-1][-1] for stage in STAGES], "LPIPS's layers with VGG16"),
    )


def alexnet(trunk: Tensors, linear: Tensors) -> tuple[AlexNet, Weights]:
    """The same of AlexNet."""
    return (
        tuple(_trunk(trunk, LAYERS, "AlexNet's trunk")),
        _weights(linear, [layer.new_channels for layer in LAYERS], "LPIPS's layers with AlexNet"),
    )


def read_lpips(path: str | Path) -> tuple[VGG, Weights]:
    """Read VGG16's trunk and the weights of its layers: a folder with the two files, or one npz file of both.

    Raises:
        FileNotFoundError: no such file, or one of a folder's is missing.
        ValueError: a file cannot be read; or what `vgg` refuses.
    """
    tensors = {name: tensor for file in vgg_files(path) for name, tensor in tensors_in(file).items()}
    linear = {name: tensor for name, tensor in tensors.items() if name.startswith("lin")}
    try:
        return vgg({name: tensor for name, tensor in tensors.items() if name not in linear}, linear)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def vgg_files(path: str | Path) -> tuple[Path, ...]:
    """The files that `read_lpips` reads.

    Raises:
        FileNotFoundError: one of a folder's is missing.
    """
    path = Path(path).expanduser()
    return lpips_files(path, "vgg16") if path.is_dir() else (path,)


def _trunk(tensors: Tensors, sizes: Iterable[tuple[int, int, int, int]], what: str) -> list[Convolution]:
    shapes = {
        str(number): {"kernel": _shape(size, size, channels, new_channels), "bias": _shape(new_channels)}
        for number, channels, new_channels, size in sizes
    }

    def names(place: Place) -> tuple[str]:
        number, kind = place
        return (f"features.{number}.{'weight' if kind == 'kernel' else 'bias'}",)

    classifier = "classifier."
    found = params_of(shapes, tensors, by_name(names), {}, what, unused=lambda name: name.startswith(classifier))
    return [Convolution(**found[number]) for number in shapes]


def _weights(tensors: Tensors, channels: Sequence[int], what: str) -> Weights:
    ending = "" if "lin0" in tensors else ".model.1.weight"
    shapes = {f"lin{i}": _shape(size) for i, size in enumerate(channels)}
    found = params_of(shapes, tensors, by_name(lambda place: (place[0] + ending,)), {}, what, ones=True)
    negative = [name for name in shapes if (found[name] < 0).any()]
    if negative:
        raise ValueError(f"these are not the tensors of {what}: {', '.join(negative)} hold negative numbers")
    return tuple(found[name] for name in shapes)


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)
