"""Weights of FID's Inception-v3, in the two layouts that they are handed around in."""

from __future__ import annotations

from typing import Any, cast

import jax.numpy as jnp

from ..inception import SIDE, InceptionV3
from .converted import Converted, Family, Settings
from .layouts import Place, StoredAt, Tensors
from .tensors import by_name, params_of, places, variables_of

KINDS = {
    "kernel": "conv.weight",
    "scale": "bn.weight",
    "bias": "bn.bias",
    "mean": "bn.running_mean",
    "var": "bn.running_var",
}

# The names of TensorFlow's graph, which OpenAI and NVIDIA keep. A normalisation has no scale there.
GRAPH_KINDS = {"kernel": "weight", "bias": "beta", "mean": "mean", "var": "var"}
GRAPH_STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
GRAPH_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
WIDE = {"branch1x1": "conv", "branch5x5": "tower", "branch3x3dbl": "tower_1", "branch_pool": "tower_2"}
LONG = {"branch1x1": "conv", "branch7x7": "tower", "branch7x7dbl": "tower_1", "branch_pool": "tower_2"}
GRAPH_BRANCHES = {
    **dict.fromkeys(("5b", "5c", "5d"), WIDE),
    "6a": {"branch3x3": "conv", "branch3x3dbl": "tower"},
    **dict.fromkeys(("6b", "6c", "6d", "6e"), LONG),
    "7a": {"branch3x3": "tower", "branch7x7x3": "tower_1"},
}
GRAPH_LAST = {
    "branch1x1": "conv",
    "branch3x3_1": "tower_conv",
    "branch3x3_2a": "tower_mixed_conv",
    "branch3x3_2b": "tower_mixed_conv_1",
    "branch3x3dbl_1": "tower_1_conv",
    "branch3x3dbl_2": "tower_1_conv_1",
    "branch3x3dbl_3a": "tower_1_mixed_conv",
    "branch3x3dbl_3b": "tower_1_mixed_conv_1",
    "branch_pool": "tower_2_conv",
}


def inception(tensors: Tensors) -> dict[str, Any]:
    """Variables of `InceptionV3` from a state dict, of pytorch-fid and torch-fidelity or of OpenAI and NVIDIA.

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite; all of them are listed.
    """
    shapes = variables_of(InceptionV3(), (1, SIDE, SIDE, 3))
    if "output.weight" not in tensors:
        what = "FID's Inception-v3 as pytorch-fid names them"
        return cast(dict[str, Any], params_of(shapes, tensors, by_name(names), {}, what, unused=unused))
    what = "FID's Inception-v3 as OpenAI and NVIDIA name them"
    variables: dict[str, Any] = params_of(shapes, tensors, by_name(graph_names), {}, what)
    for place, shape in places(shapes).items():
        if place[-1] == "scale":
            layer = variables
            for key in place[:-1]:
                layer = layer[key]
            layer["scale"] = jnp.ones(shape)
    return variables


def names(place: Place) -> tuple[str]:
    """The name that pytorch-fid gives a variable."""
    match place:
        case (_, "fc", "kernel"):
            return ("fc.weight",)
        case (_, "fc_bias"):
            return ("fc.bias",)
    _, *unit, _, kind = place
    return (".".join([*unit, KINDS[kind]]),)


def unused(name: str) -> bool:
    """Whether a tensor of pytorch-fid's file plays no part in features."""
    return name.endswith(".num_batches_tracked") or name.startswith("AuxLogits.")


def graph_names(place: Place) -> tuple[str, ...]:
    """The name that a variable has in OpenAI's and NVIDIA's files; none if it is a scale."""
    match place:
        case (_, "fc", "kernel"):
            return ("output.weight",)
        case (_, "fc_bias"):
            return ("output.bias",)
        case (*_, "scale"):
            return ()
    _, *unit, _, kind = place
    return (".".join(["layers", graph_unit(*unit), GRAPH_KINDS[kind]]),)


def graph_unit(block: str, branch: str = "") -> str:
    """Where TensorFlow's graph has a unit."""
    if not branch:
        return GRAPH_STEM[block]
    key = block.removeprefix("Mixed_")
    number = GRAPH_BLOCKS.index(key)
    mixed = f"mixed_{number}" if number else "mixed"
    if key not in GRAPH_BRANCHES:
        return f"{mixed}.{GRAPH_LAST[branch]}"
    towers = GRAPH_BRANCHES[key]
    if branch in towers and towers[branch] == "conv":
        return f"{mixed}.conv"
    name, _, step = branch.rpartition("_") if branch not in towers else (branch, "", "1")
    return f"{mixed}.{towers[name]}.{'conv' if step == '1' else f'conv_{int(step) - 1}'}"


# ---- As a converted checkpoint ---------------------------------------------------------------------------------------

LIBRARIES = {"pytorch-fid": names, "OpenAI and NVIDIA": graph_names}


def convert(content: Any) -> Converted:
    """A file of Inception.

    Raises:
        ValueError: what `inception` refuses.
    """
    library = "OpenAI and NVIDIA" if "output.weight" in content else "pytorch-fid"
    settings: Settings = {"network": {}, "names": library, "left_out": [name for name in content if unused(name)]}
    return Converted("inception", settings, InceptionV3(), inception(content))


def recognises(content: Any) -> bool:
    """Whether this is a file of FID's Inception-v3, or of another one, which is then refused with what differs."""
    return "Mixed_5b.branch1x1.conv.weight" in content or "layers.conv.weight" in content


def _stored_at(settings: Settings) -> StoredAt:
    return by_name(LIBRARIES[settings["names"]])


FAMILY = Family(
    recognises,
    convert,
    lambda settings: InceptionV3(),
    _stored_at,
    lambda settings: {},
    "--weights, with --features inception",
)
