"""Weights of DINOv2, under the names of timm, of Meta and of Hugging Face's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..dinov2 import DINOV2_SIZES, DINOv2, Resample, smoothed, to_scale, to_size
from .converted import Converted, Family, Settings
from .layouts import Place, Stored, StoredAt, Tensors, first_axes_of_one, outputs_first, patches, same
from .tensors import layers_of, params_of, refuse_empty, variables_of


class Names(NamedTuple):
    """How a library names the tensors, and how it takes positions to another grid; `#` stands for a block's number.

    Attributes:
        library: whose they are.
        layers: {place of a layer of ours: the names of its pieces}.
        resample: positions of images of another size.
        unused: names that play no part in features.
    """

    library: str
    layers: Mapping[str, tuple[str, ...]]
    resample: Resample
    unused: tuple[str, ...] = ()


TIMM: Mapping[str, tuple[str, ...]] = {
    "class_token": ("cls_token",),
    "positions": ("pos_embed",),
    "embed": ("patch_embed.proj",),
    "norm": ("norm",),
    "block#/norm0": ("blocks.#.norm1",),
    "block#/norm1": ("blocks.#.norm2",),
    "block#/scale0": ("blocks.#.ls1.gamma",),
    "block#/scale1": ("blocks.#.ls2.gamma",),
    "block#/self_attention/qkv": ("blocks.#.attn.qkv",),
    "block#/self_attention/proj": ("blocks.#.attn.proj",),
    "block#/mlp0": ("blocks.#.mlp.fc1",),
    "block#/mlp1": ("blocks.#.mlp.fc2",),
}
META_GATED: Mapping[str, tuple[str, ...]] = {"block#/mlp0": ("blocks.#.mlp.w12",), "block#/mlp1": ("blocks.#.mlp.w3",)}
HUGGING_FACE: Mapping[str, tuple[str, ...]] = {
    "class_token": ("embeddings.cls_token",),
    "positions": ("embeddings.position_embeddings",),
    "embed": ("embeddings.patch_embeddings.projection",),
    "norm": ("layernorm",),
    "block#/norm0": ("encoder.layer.#.norm1",),
    "block#/norm1": ("encoder.layer.#.norm2",),
    "block#/scale0": ("encoder.layer.#.layer_scale1.lambda1",),
    "block#/scale1": ("encoder.layer.#.layer_scale2.lambda1",),
    "block#/self_attention/qkv": tuple(
        f"encoder.layer.#.attention.attention.{name}" for name in ("query", "key", "value")
    ),
    "block#/self_attention/proj": ("encoder.layer.#.attention.output.dense",),
    "block#/mlp0": ("encoder.layer.#.mlp.fc1",),
    "block#/mlp1": ("encoder.layer.#.mlp.fc2",),
}
HUGGING_FACE_GATED: Mapping[str, tuple[str, ...]] = {
    "block#/mlp0": ("encoder.layer.#.mlp.weights_in",),
    "block#/mlp1": ("encoder.layer.#.mlp.weights_out",),
}


UNUSED = "mask_token"  # kept for the way back, beside the parameters of the network


def names_in(tensors: Tensors) -> Names:
    """The library that a file is of, by what it alone has: Meta's mask token, Hugging Face's words."""
    if "embeddings.cls_token" in tensors:
        return names_of("Hugging Face", gated="encoder.layer.0.mlp.weights_in.weight" in tensors)
    if "mask_token" in tensors:
        return names_of("Meta", gated="blocks.0.mlp.w12.weight" in tensors)
    return names_of("timm", gated=False)


def names_of(library: str, *, gated: bool) -> Names:
    """The names of a library; those of timm's gated MLPs are as of its others."""
    if library == "Hugging Face":
        layers = {**HUGGING_FACE, **(HUGGING_FACE_GATED if gated else {})}
        return Names(library, layers, to_size, unused=("embeddings.mask_token",))
    if library == "Meta":
        return Names(library, {**TIMM, **(META_GATED if gated else {})}, to_scale, unused=("mask_token",))
    return Names(library, TIMM, smoothed)


def dinov2(tensors: Tensors, *, heads: int | None = None) -> tuple[DINOv2, dict[str, Any]]:
    """The network of a file and its parameters.

    Everything is read off the tensors but the number of heads, which is that of the published size with this width.
    The positions of images of another size are those of the library that the names are of, and
    `module.clone(resample=...)` has another's.

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite, all of which are listed; or the
            width is not that of a published size and `heads` is not given.
    """
    names = names_in(tensors)
    module = _module(tensors, names, heads)
    side = module.patch * module.table
    params = params_of(
        variables_of(module, (1, side, side, 3))["params"],
        tensors,
        stored_at(names, module.patch),
        {},
        f"DINOv2 as {names.library} names them",
        unused=lambda name: name in names.unused,
        ones=True,
    )
    return module, {"params": params}


def stored_at(names: Names, patch: int) -> StoredAt:
    """Where the files of a library have each parameter."""

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        if place == (UNUSED,):
            return Stored(names.unused, same)
        found = _names(place, names)
        if place == ("embed", "kernel"):
            return Stored(found, patches(patch))
        if place[0] in ("class_token", "positions"):
            return Stored(found, first_axes_of_one(3 - len(shape)))
        return Stored(found, outputs_first if place[-1] == "kernel" else same)

    return of


def _module(tensors: Tensors, names: Names, heads: int | None) -> DINOv2:
    """The network that the shapes of the tensors belong to."""
    embed, positions = f"{names.layers['embed'][0]}.weight", names.layers["positions"][0]
    for name, axes in ((embed, 4), (positions, 3)):
        if name not in tensors or tensors[name].ndim != axes:
            found = tensors[name].shape if name in tensors else "not there"
            raise ValueError(f"not the weights of DINOv2: {name} is {found}, expected a tensor of {axes} axes")
    refuse_empty(tensors)
    width, channels, patch, columns = tensors[embed].shape
    patches = tensors[positions].shape[1] - 1
    table = round(patches**0.5)
    if channels != 3 or patch != columns or table**2 != patches:
        shapes = f"{tensors[embed].shape} and {tensors[positions].shape}"
        raise ValueError(f"not the weights of DINOv2: {embed} and {positions} have shapes {shapes}")
    if heads is None:
        published = {size.width: size.heads for size in DINOV2_SIZES.values()}
        if width not in published:
            raise ValueError(f"no published DINOv2 is {width} wide, only {sorted(published)}: give its heads=")
        heads = published[width]
    if width % heads:
        raise ValueError(f"a width of {width} is not divisible by heads={heads}")
    first, second = (names.layers[f"block#/mlp{i}"][0].replace("#", "0") + ".weight" for i in range(2))
    gated = first in tensors and second in tensors and tensors[first].shape[0] == 2 * tensors[second].shape[-1]
    before, _ = names.layers["block#/norm0"][0].split("#")
    depth = max(1, layers_of(tensors, re.escape(before) + r"(\d+)\."))
    return DINOv2(width, depth, heads, patch=patch, table=table, gated=gated, resample=names.resample)


def _names(place: Place, names: Names) -> tuple[str, ...]:
    """The names of the pieces of a parameter."""
    layer = list(place)
    if layer[-1] in ("kernel", "bias", "scale"):
        layer, ending = layer[:-1], ".bias" if layer[-1] == "bias" else ".weight"
    else:
        ending = ""
    number = "".join(re.findall(r"^block(\d+)$", layer[0]))
    key = "/".join(["block#", *layer[1:]] if number else layer)
    return tuple(name.replace("#", number) + ending for name in names.layers[key])


# ---- As a converted checkpoint ---------------------------------------------------------------------------------------


def convert(content: Any, *, heads: int | None = None) -> Converted:
    """A file of DINOv2.

    Raises:
        ValueError: what `dinov2` refuses.
    """
    module, variables = dinov2(content, heads=heads)
    names = names_in(content)
    params = variables["params"]
    if names.unused and names.unused[0] in content:
        params = {**params, UNUSED: jnp.asarray(content[names.unused[0]], jnp.float32)}
    settings: Settings = {
        "network": {name: getattr(module, name) for name in ("width", "depth", "heads", "patch", "table", "gated")},
        "names": names.library,
    }
    return Converted("dinov2", settings, module, params)


def build(settings: Settings) -> DINOv2:
    """The network of these settings, with the positions of the library that they name."""
    return DINOv2(**settings["network"], resample=_names_of(settings).resample)


def recognises(content: Any) -> bool:
    """Whether this is a file of DINOv2."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(content) or "embeddings.cls_token" in content


def _names_of(settings: Settings) -> Names:
    return names_of(settings["names"], gated=settings["network"]["gated"])


def _stored_at(settings: Settings) -> StoredAt:
    return stored_at(_names_of(settings), settings["network"]["patch"])


FAMILY = Family(
    recognises,
    convert,
    build,
    _stored_at,
    lambda settings: {},
    "--weights, with --features dinov2, or --config.reward_weights",
)
