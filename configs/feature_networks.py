"""Published networks whose outputs are features, as judging takes them. Not a run.

Inception's three ways to 299 pixels and their scales are those of docs/evaluation.md.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

import eval as evaluation
from configs.in_parts import in_parts
from eval import weights
from eval.names import LOGITS, POOL, SPATIAL
from eval.resize import clean_fid_bicubic, tf1_bilinear, torch_bicubic, torch_bilinear
from models.dinov2 import normalised, to_scale
from models.inception import SIDE, InceptionV3
from models.pretrained import Converted, load
from models.pretrained.contents import tensors_in
from models.pretrained.dinov2 import dinov2
from models.pretrained.folder import source_sha256
from models.pretrained.inception import inception

DINOV2_SIDE = 224


class Prepare(NamedTuple):
    """How images come to a network's size and scale.

    Attributes:
        device: images [B, H, W, C] on the scale of 0 to 255, uint8 or what `host` gives, to the network's input.
        host: the part that cannot run there, of NumPy arrays.
    """

    device: Callable[[jax.Array], jax.Array]
    host: Callable[[np.ndarray], np.ndarray] = lambda images: images


class Network(NamedTuple):
    """A network whose outputs are features.

    Attributes:
        outputs: by the names of features, what is taken of what the network gives; names say what metrics are called.
        resizes: ways of preparing images by name, the usual one first.
        weights: its published file.
        load: file, or the folder that it was converted to -> (parameters, prepared images) -> outputs, at the highest
            precision; and the parameters.
    """

    outputs: Mapping[str, Callable[[Any], jax.Array]]
    resizes: Mapping[str, Prepare]
    weights: evaluation.WeightFile
    load: Callable[[Path], tuple[Callable[[Any, jax.Array], Any], Any]]


def converted(folder: Path, family: str) -> Converted:
    """Weights of a family in a folder that they were converted to.

    Raises:
        FileNotFoundError: nothing was converted there.
        ValueError: it is of another family.
    """
    found = load(folder)
    if found.family != family:
        raise ValueError(f"{folder} has weights of the family {found.family}; these features need {family}")
    return found


def weights_sha256(path: Path) -> str:
    """Of a file of weights; of a folder that one was converted to that of the file before."""
    return source_sha256(path) if path.is_dir() else evaluation.file_sha256(path)


def coloured(images: jax.Array) -> jax.Array:
    """Three channels, of one if there is one."""
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


def tf1(images: jax.Array) -> jax.Array:
    """As TensorFlow 1 enlarged, and torch-fidelity, EDM, ADM and MeanFlow do."""
    return (tf1_bilinear(coloured(images), SIDE) - 128) / 128


def halfpixel(images: jax.Array) -> jax.Array:
    """As pytorch-fid does."""
    return torch_bilinear(coloured(images), SIDE) / 127.5 - 1


def in_pairs(network: Callable[[Any, jax.Array], Any], devices: int) -> Callable[[Any, jax.Array], Any]:
    """The same, two images a device at a time: on a CPU, XLA's convolutions slow down with larger batches.

    The batch is spread over the devices in order. One that they do not divide, or of one image each, is taken whole.
    """

    def of(params: Any, images: jax.Array) -> Any:
        if len(images) % devices or len(images) == devices:
            return network(params, images)
        return in_parts(partial(network, params), images, each=2, devices=devices)

    return of


def _inception(path: Path) -> tuple[Callable[[Any, jax.Array], Any], Any]:
    network = InceptionV3().apply
    params = converted(path, "inception").params if path.is_dir() else inception(tensors_in(path))
    on_cpu = jax.default_backend() == "cpu"
    return in_pairs(network, jax.local_device_count()) if on_cpu else network, params


INCEPTION = Network(
    outputs={
        POOL: lambda taps: taps.pool2048,
        SPATIAL: lambda taps: taps.spatial,
        LOGITS: lambda taps: taps.logits_unbiased,
    },
    resizes={
        "tf1": Prepare(tf1),
        "halfpixel": Prepare(halfpixel),
        "clean": Prepare(lambda images: (coloured(images) - 128) / 128, partial(clean_fid_bicubic, side=SIDE)),
    },
    weights=weights.INCEPTION,
    load=_inception,
)


def _dinov2(path: Path) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    if path.is_dir():
        _, _, module, found = converted(path, "dinov2")
        params = {"params": found}
    else:
        module, params = dinov2(tensors_in(path))
    # FD-DINOv2 is measured in Meta's network: a number may not depend on the library whose file the weights are in.
    module = module.clone(resample=to_scale)
    return lambda params, images: cast(jax.Array, module.apply(params, images)), params


DINOV2 = Network(
    outputs={"dinov2": lambda tokens: tokens[:, 0]},
    resizes={"bicubic": Prepare(lambda images: normalised(torch_bicubic(coloured(images), DINOV2_SIDE)))},
    weights=weights.DINOV2,
    load=_dinov2,
)

NETWORKS = (INCEPTION, DINOV2)
