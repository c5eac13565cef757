"""Checkpoints of DiT, SiT and REPA, which have one network (Peebles and Xie 2022; Ma et al. 2024; Yu et al. 2024).

A file says neither how many heads its attention has nor, unless it is a training state, whether its output is noise or
a velocity. The published sizes have their heads; of REPA there are further layers to tell it by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..dit import SIZES, DiT
from ..embeddings import grid_positions, sinusoidal
from .converted import Converted, Family, Settings
from .layouts import Place, Stored, StoredAt, Tensors, linear, patches, same
from .openai import noise_levels
from .tensors import layers_of, params_of, refuse, refuse_empty, shapes_of
from .values import Record

LAYERS = {
    ("embed",): "x_embedder.proj",
    ("conditioning", "t", "linear0"): "t_embedder.mlp.0",
    ("conditioning", "t", "linear1"): "t_embedder.mlp.2",
    ("conditioning", "labels"): "y_embedder.embedding_table",
    ("modulation",): "final_layer.adaLN_modulation.1",
    ("final",): "final_layer.linear",
    ("blocks", "modulation"): "blocks.{}.adaLN_modulation.1",
    ("blocks", "self_attention", "qkv"): "blocks.{}.attn.qkv",
    ("blocks", "self_attention", "proj"): "blocks.{}.attn.proj",
    ("blocks", "mlp0"): "blocks.{}.mlp.fc1",
    ("blocks", "mlp1"): "blocks.{}.mlp.fc2",
}
PROGRAMS = ("dit", "sit", "repa")
PROJECTORS = "projectors."  # REPA's layers towards the features of another network, of no use after training


def convert(content: Any, *, program: str | None = None, heads: int | None = None) -> Converted:
    """A state dict, or a training state, of which the average is taken.

    Args:
        content: what `read` gives.
        program: "dit" (noise, at steps 0 to 999), "sit" (velocity, its time 0 at noise) or "repa" (velocity, its time 0
            at data), where the file does not say it.
        heads: of the attention; not needed for the published sizes.

    Raises:
        ValueError: the content is another, or of a network that is not one of ours, with all that is missing, left over
            or of another shape; or it is not said what is needed.
    """
    tensors = _tensors(content)
    if not recognises(content):
        raise ValueError("there is no DiT, with tensors such as x_embedder.proj.weight")
    repa = {name: a for name, a in tensors.items() if name.startswith(PROJECTORS)}
    program = "repa" if repa else program or _said(content.get("args"))
    if program not in PROGRAMS:
        raise ValueError(f"the file does not say what it is: give program, {', '.join(PROGRAMS)}; got {program!r}")
    needed = ("pos_embed", "blocks.0.mlp.fc1.weight", "final_layer.linear.weight")
    refuse([f"{name} is missing" for name in needed if name not in tensors], "these are not the tensors of a DiT")
    network = network_of(tensors, heads)
    patch, grid = network["patch"], math.isqrt(tensors["pos_embed"].shape[1])
    if tensors["pos_embed"].shape != (1, grid**2, network["width"]):
        raise ValueError(f"pos_embed has shape {tensors['pos_embed'].shape}, no square of width {network['width']}")
    labels, channels = tensors.get("y_embedder.embedding_table.weight"), tensors["x_embedder.proj.weight"].shape[1]
    settings: Settings = {
        "shape": (grid * patch, grid * patch, channels),
        "num_classes": 0 if labels is None else labels.shape[0] - 1,  # the last is the null class
        "network": network,
        "call": call_of(str(program)),
        "left_out": sorted(repa),
    }
    module = build(settings)
    shapes = shapes_of(module, (1, *settings["shape"]), (1,), labels=module.num_classes > 0)
    kept = {name: a for name, a in tensors.items() if name not in repa}
    what = f"a DiT of width {module.width} and depth {module.depth}"
    # An average of float32 numbers drifts a little even where all of them are equal, and positions were averaged too.
    params = params_of(shapes, kept, stored_at(settings), constants(settings), what, within=1e-3)
    return Converted("dit", settings, module, params)


def _said(arguments: Any) -> str | None:
    """The program by the arguments of a training state; the size in them need not be that of the network in it."""
    state = arguments.state if isinstance(arguments, Record) else None
    model = state.get("model") if isinstance(state, Mapping) else None
    return model.split("-")[0].lower() if isinstance(model, str) else None


def network_of(tensors: Tensors, heads: int | None) -> dict[str, Any]:
    """What the transformer is built with, from its tensors."""
    refuse_empty(tensors)
    width, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
    depth = layers_of(tensors, r"blocks\.(\d+)\.")
    published = {(size.width, size.depth): size.heads for size in SIZES.values()}
    heads = heads or published.get((width, depth))
    if heads is None:
        raise ValueError(f"width {width} and depth {depth} are no published size: give heads, which no file says")
    return {
        "patch": patch,
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] // width,
        "channels": channels,
        "out_channels": tensors["final_layer.linear.weight"].shape[0] // patch**2,
    }


def call_of(program: str) -> dict[str, Any]:
    """How the network is called. Of twice as many output channels the second half, a variance, is not used."""
    if program == "dit":
        levels = noise_levels("linear")
        return {"kind": "discrete", "levels": levels, "sigma_min": levels[0], "sigma_max": min(levels[-1], 80.0)}
    # Our t is 1 at noise. SiT's is 0 there, and its velocity points to the data.
    return {"kind": "velocity", "reversed": program == "sit"}


def build(settings: Settings) -> DiT:
    """The transformer of these settings."""
    network = {name: value for name, value in settings["network"].items() if name != "channels"}
    return DiT(num_classes=settings["num_classes"], **network)


def stored_at(settings: Settings) -> StoredAt:
    """Where the files have each parameter; layers of all blocks lie stacked here."""
    network = settings["network"]

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        *path, kind = place
        layer = LAYERS[tuple(path)]
        layout = same if kind in ("bias", "embedding") else patches(network["patch"]) if path == ["embed"] else linear
        name = f"{layer}.{'bias' if kind == 'bias' else 'weight'}"
        return Stored(name, layout, network["depth"] if path[0] == "blocks" else 0)

    return of


def constants(settings: Settings) -> dict[str, np.ndarray]:
    """The positions."""
    side = settings["shape"][0] // settings["network"]["patch"]
    return {"pos_embed": grid_positions(side, side, settings["network"]["width"])[None]}


def plain_velocity(settings: Settings, params: Any) -> Any:
    """Parameters of the same network with v(x, t) of (1 - t) x + t z as its output, exactly.

    Outputs of a variance are left out. SiT's network reads 1 - t and points to the data: the sinusoids of f - f t are
    those of f t, turned by f, which the layer after them takes up, and the last layer changes its sign.
    """
    network, channels = settings["network"], settings["shape"][-1]
    sign = -1.0 if settings["call"]["reversed"] else 1.0

    def outputs(leaf: Array) -> Array:
        split = leaf.reshape(*leaf.shape[:-1], network["patch"] ** 2, network["out_channels"])
        return sign * split[..., :channels].reshape(*leaf.shape[:-1], -1)

    params = {**params, "final": {name: outputs(leaf) for name, leaf in params["final"].items()}}
    if not settings["call"]["reversed"]:
        return params
    first = params["conditioning"]["t"]["linear0"]
    ones = np.asarray(sinusoidal(jnp.ones(1), first["kernel"].shape[0]))[0, :, None]
    (cos_f, sin_f), (cosines, sines) = np.split(ones, 2), jnp.split(first["kernel"], 2)
    turned = jnp.concatenate([cos_f * cosines + sin_f * sines, sin_f * cosines - cos_f * sines])
    times = {**params["conditioning"]["t"], "linear0": {**first, "kernel": turned}}
    return {**params, "conditioning": {**params["conditioning"], "t": times}}


def recognises(content: Any) -> bool:
    """Whether this is a checkpoint of DiT, SiT or REPA."""
    return "x_embedder.proj.weight" in _tensors(content)


def _tensors(content: Any) -> Tensors:
    """The averaged weights of a training state, or a state dict as it is."""
    tensors = content.get("ema", content) if isinstance(content, Mapping) else {}
    return tensors if isinstance(tensors, Mapping) else {}


FAMILY = Family(recognises, convert, build, stored_at, constants)
