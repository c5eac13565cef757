"""Random weights that depend on a name alone: what the published outputs of metric networks were computed with."""

import zlib

import numpy as np

from models.alexnet import LAYERS
from models.pretrained import lpips
from models.vgg import STAGES


def draws(name, shape):
    """Normal numbers for the parameter of this name, in PyTorch's order of axes."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"visible/{name}".encode())))
    return generator.standard_normal(shape, dtype=np.float32)


def inception_tensor(name, shape):
    """A weight of Inception-v3 under the name that pytorch-fid gives it, statistics random too."""
    numbers, kind = draws(name, shape), name.split(".", 1)[1].rpartition(".")[2]
    if name.startswith("fc."):
        return numbers / np.float32(np.sqrt(2048)) if kind == "weight" else np.float32(0.1) * numbers
    if ".conv." in name:
        return numbers * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if kind == "weight":
        return 1 + np.float32(0.1) * numbers
    return np.exp(np.float32(0.2) * numbers) if kind == "running_var" else np.float32(0.1) * numbers


# Number in torchvision's list of layers, channels in, channels out, side of the window.
TRUNKS = {
    "vgg": [(number, channels, new, 3) for stage in STAGES for number, channels, new in stage],
    "alex": LAYERS,
}
CHANNELS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def trunk_tensors(network):
    """The trunk of VGG16 or AlexNet under torchvision's names."""
    tensors = {}
    for number, channels, new_channels, size in TRUNKS[network]:
        name, shape = f"features.{number}", (new_channels, channels, size, size)
        scale = np.float32(np.sqrt(2 / (channels * size**2)))
        tensors[f"{name}.weight"] = draws(f"{name}.weight", shape) * scale
        tensors[f"{name}.bias"] = draws(f"{name}.bias", (new_channels,)) * np.float32(0.1)
    return tensors


def linear_tensors(network):
    """The weights of the layers of LPIPS, under the package's names."""
    tensors = {}
    for i, channels in enumerate(CHANNELS[network]):
        name = f"lin{i}.model.1.weight"
        tensors[name] = np.abs(draws(f"{network}.{name}", (1, channels, 1, 1))) / np.float32(channels)
    return tensors


def lpips_vgg():
    """VGG16's trunk and the weights of its layers, as our networks take them."""
    return lpips.vgg(trunk_tensors("vgg"), linear_tensors("vgg"))


def lpips_alexnet():
    """The same of AlexNet."""
    return lpips.alexnet(trunk_tensors("alex"), linear_tensors("alex"))
