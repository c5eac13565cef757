"""EDM's checkpoints, and those of ECT and CTM, which have the same U-Nets (Karras et al. 2022; Geng et al. 2024).

All of the network follows from the names and shapes of its tensors; what is around it, from the class in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import numpy as np

from ..adm import adm
from ..embeddings import edm_positional, fourier
from ..unet import SongUNet
from .converted import Converted, Family, Settings
from .layouts import Place, Stored, StoredAt, Tensors, box, convolution, flat, linear, numbers, qkv, same
from .modules import state_dict
from .tensors import layers_of, params_of, refuse, refuse_empty, shapes_of
from .values import Record, short

CLASSES = {
    "EDMPrecond": "edm",
    "VPPrecond": "vp",
    "VEPrecond": "ve",
    "iDDPMPrecond": "iddpm",
    "ECMPrecond": "ecm",
}
"""The classes around a network in NVIDIA's and ECT's files, and the names that `convert` has for them."""

# What no published network has otherwise, by the names of EDM's classes.
FIXED = {"decoder_type": "standard", "adaptive_scale": True, "channel_mult_emb": 4, "label_dropout": 0}
ADM_HEAD = 64  # channels; in EDM's code a constant
SIGMA_MAX = 80.0


def convert(content: Any, *, preconditioning: str | None = None) -> Converted:
    """A checkpoint of EDM, ECT or CTM: a pickle, a training state, or a state dict.

    Args:
        content: what `read` gives.
        preconditioning: "edm", "vp", "ve", "iddpm" or "ecm" (ECT's consistency function) of a state dict, which does
            not say; a pickle says it, and CTM's layers do.

    Raises:
        ValueError: the content is another, or of a network that is not one of ours, with all that is missing, left over
            or of another shape; or the preconditioning is not known.
    """
    record = module_of(content)
    tensors = state_dict(record) if record else content
    jumps = any(".affine_s." in name for name in tensors)
    if record is None and not jumps and preconditioning not in CLASSES.values():
        raise ValueError(
            f"a state dict does not say how its network is preconditioned: give one of {', '.join(CLASSES.values())}; "
            f"got {preconditioning!r}"
        )
    state = record.state if record else {}
    given = "ctm" if jumps else CLASSES[record.name] if record else str(preconditioning)
    arguments = state.get("_init_kwargs", {})
    wrong = [
        f"{name}={short(arguments[name])} is not supported, only {value!r}"
        for name, value in FIXED.items()
        if arguments.get(name, value) != value
    ]
    refuse(wrong, "this is not a network that EDM has published")

    network = network_of(tensors, dropout=float(arguments.get("dropout", 0.0)))
    channels = tensors[f"model.enc.{network['resolution']}x{network['resolution']}_conv.weight"].shape[1]
    labels = tensors.get("model.map_label.weight")
    settings: Settings = {
        "shape": (network["resolution"], network["resolution"], channels),
        "num_classes": 0 if labels is None else labels.shape[1],
        "network": network,
        "call": call_of(given, state, tensors),
    }
    module = build(settings)
    told = {"labels": settings["num_classes"] > 0, "second_time": jumps}
    shapes = shapes_of(module, (1, *settings["shape"]), (1,), **told)
    what = f"a {type(module).__name__} of this shape"
    params = params_of(shapes, tensors, stored_at(settings), constants(settings), what)
    return Converted("edm", settings, module, params)


def module_of(content: Any) -> Record | None:
    """The network with its average weights in a snapshot, or the one in a training state; None if there is no such."""
    for name in ("ema", "net"):
        module = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(module, Record) and module.name in CLASSES:
            return module
    return None


def network_of(tensors: Tensors, dropout: float) -> dict[str, Any]:
    """What a U-Net is built with, from its tensors."""
    refuse_empty(tensors)
    found = re.findall(r"model\.dec\.(\d+)x\1_block\d+\.conv1\.weight", "\n".join(tensors))
    resolutions = sorted({int(resolution) for resolution in found}, reverse=True)
    song = any(name.endswith("_aux_conv.weight") for name in tensors)
    if not found or not (song or "model.out_conv.weight" in tensors):
        raise ValueError("there is no U-Net of EDM's, with tensors such as model.dec.32x32_block0.conv1.weight")
    top, blocks = resolutions[0], layers_of(tensors, r"model\.dec\.\d+x\d+_block(\d+)\.") - 1
    widths = [tensors[f"model.dec.{r}x{r}_block0.conv1.weight"].shape[0] for r in resolutions]
    first = tensors[f"model.enc.{top}x{top}_conv.weight"].shape[0]
    channels = first if song else tensors["model.map_layer0.weight"].shape[1]
    if [width % channels for width in widths] != [0] * len(widths):
        raise ValueError(f"the resolutions have {widths} channels, which are not multiples of {channels}")
    filters = [a for name, a in tensors.items() if name.endswith("resample_filter")]
    residual = [name for name in tensors if "aux_residual" in name]
    frequencies = tensors.get("model.map_noise.freqs")
    augment = tensors.get("model.map_augment.weight")
    attends = [r for r in resolutions if f"model.dec.{r}x{r}_block{blocks}.qkv.weight" in tensors]
    out = "model.out_conv" if not song else f"model.dec.{top}x{top}_aux_conv"
    return {
        "unet": "song" if song else "adm",
        "resolution": top,
        "channels": channels,
        "multipliers": tuple(width // channels for width in widths),
        "blocks": blocks,
        "attention_resolutions": tuple(attends),
        "residual_encoder": bool(residual),
        "resample_filter": (1, 3, 3, 1) if filters and filters[0].shape[-1] == 4 else (1, 1),
        "frequencies": None if frequencies is None else numbers(frequencies),
        "augment_features": 0 if augment is None else augment.shape[1],
        "second_branch": any(".affine_s." in name for name in tensors),
        "out_channels": tensors[f"{out}.weight"].shape[0],
        "dropout": dropout,
    }


def call_of(preconditioning: str, state: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """How the network is called, from what its object has beside it."""
    sigma_data = float(state.get("sigma_data", 0.5))
    match preconditioning:
        case "edm":
            return {"kind": "edm", "sigma_data": sigma_data, "sigma_min": 0.002, "sigma_max": SIGMA_MAX}
        case "ecm":
            sigma_min = float(state.get("sigma_min", 0.003))  # the constant of ECT's code
            return {"kind": "consistency", "sigma_data": sigma_data, "sigma_min": sigma_min, "sigma_max": SIGMA_MAX}
        case "ctm":
            return {"kind": "trajectory", "sigma_data": sigma_data, "sigma_min": 0.002, "sigma_max": SIGMA_MAX}
        case "vp":
            law = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}
            values = {name: state.get(name, value) for name, value in law.items()}
            return {"kind": "vp", **values, "sigma_min": 0.002, "sigma_max": SIGMA_MAX}
        case "ve":
            return {"kind": "ve", "sigma_min": 0.02, "sigma_max": SIGMA_MAX}
    if "u" not in tensors:
        raise ValueError("u, the table of noise levels of iDDPMPrecond, is missing")
    levels = numbers(tensors["u"])[-2::-1]  # u falls to 0, which is no step
    # EDM's sampler starts where its own noise levels do, on a network that knows larger ones.
    return {"kind": "discrete", "levels": levels, "sigma_min": levels[0], "sigma_max": min(levels[-1], SIGMA_MAX)}


def build(settings: Settings) -> nn.Module:
    """The U-Net of these settings."""
    network = settings["network"]
    shared: dict[str, Any] = {
        name: tuple(network[name]) if isinstance(network[name], list | tuple) else network[name]
        for name in ("channels", "multipliers", "blocks", "attention_resolutions", "augment_features", "dropout")
    }
    shared["num_classes"] = settings["num_classes"]
    if network["unet"] == "adm":
        return adm(**shared, channels_per_head=ADM_HEAD).clone(out_channels=network["out_channels"])
    frequencies = network["frequencies"]
    embedding = (
        partial(edm_positional, features=network["channels"])
        if frequencies is None
        else partial(fourier, frequencies=tuple(frequencies))
    )
    return SongUNet(
        noise_embedding=embedding,
        residual_encoder=network["residual_encoder"],
        resample_filter=tuple(network["resample_filter"]),
        second_time=network["second_branch"],
        second_branch=network["second_branch"],
        out_channels=network["out_channels"],
        **shared,
    )


def stored_at(settings: Settings) -> StoredAt:
    """Where NVIDIA's files have each parameter: `enc_8x8_block0` is their `model.enc.8x8_block0`."""
    song = settings["network"]["unet"] == "song"

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        first, *inside, kind = place
        layers = [re.sub(r"^(enc|dec)_", r"\1.", first), *(name for name in inside if name != "self_attention")]
        name = ".".join(["model", *layers, "bias" if kind == "bias" else "weight"])
        if "self_attention" in inside:
            layout = flat(2 if kind == "kernel" else 0)
            heads = 1 if song else shape[-1] // 3 // ADM_HEAD
            return Stored(name, qkv("head dim qkv", heads, layout) if layers[-1] == "qkv" else layout)
        if kind == "kernel":
            return Stored(name, convolution if len(shape) == 4 else linear)
        return Stored(name, same)

    return of


def constants(settings: Settings) -> dict[str, np.ndarray]:
    """The filters, one for each layer that resamples, and the frequencies."""
    network = settings["network"]
    taps = box(tuple(network["resample_filter"]))
    levels = [network["resolution"] >> level for level in range(len(network["multipliers"]))]
    layers = [f"enc.{r}x{r}_down.{layer}" for r in levels[1:] for layer in ("conv0", "skip")]
    layers += [f"dec.{r}x{r}_up.{layer}" for r in levels[:-1] for layer in ("conv0", "skip")]
    layers += [f"enc.{r}x{r}_aux_residual" for r in levels[1:] if network["residual_encoder"]]
    buffers = {f"model.{layer}.resample_filter": taps for layer in layers}
    if network["frequencies"] is not None:
        buffers["model.map_noise.freqs"] = np.asarray(network["frequencies"])
    if settings["call"]["kind"] == "discrete":
        buffers["u"] = np.array([*settings["call"]["levels"][::-1], 0.0])
    return buffers


def recognises(content: Any) -> bool:
    """Whether this is a checkpoint of EDM, ECT or CTM."""
    return module_of(content) is not None or any(str(name).startswith("model.enc.") for name in content)


FAMILY = Family(recognises, convert, build, stored_at, constants)
