"""EDM2's checkpoints, post-hoc averages among them (Karras et al. 2024). Their 16-bit weights are kept as they are.

Weights are normalised on use, here as there, so nothing is to be done to them on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..edm2 import EDM2UNet, edm2
from ..edm2_blocks import mp_fourier
from ..log_variance import EDM2LogVariance
from .converted import Converted, Family, Settings
from .layouts import Place, Stored, StoredAt, convolution, linear, numbers, qkv, same
from .modules import state_dict
from .tensors import params_of, refuse, refuse_empty, shapes_of
from .values import Record, short

# What no published network has otherwise, by the names of EDM2's classes.
FIXED = {
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
    "resample_filter": [1, 1],
}
SIZES = ("img_resolution", "img_channels", "label_dim", "model_channels", "num_blocks", "channels_per_head")
LARGEST = 2**20  # of a size; the classes of a data set may be many
DEFAULTS = {"channel_mult": [1, 2, 3, 4], "num_blocks": 3, "attn_resolutions": [16, 8], "channels_per_head": 64}


def convert(content: Any) -> Converted:
    """A snapshot of EDM2: the network, the weight of each noise level beside it, and what its examples are.

    Raises:
        ValueError: the content is another, or of a network that is not one of ours, with all that is missing, left over
            or of another shape.
    """
    if not recognises(content):
        raise ValueError("this is no snapshot of EDM2, which has its network as `ema`")
    record = content["ema"]
    tensors = state_dict(record)
    refuse_empty(tensors)
    given = {**DEFAULTS, **record.state["_init_kwargs"]}
    wrong = [
        f"{name}={short(given[name])} is not supported, only {value!r}"
        for name, value in FIXED.items()
        if given.get(name, value) != value
    ]
    wrong += [f"{name}={short(given[name])} is no size" for name in SIZES if not _is_size(given[name])]
    for name in ("channel_mult", "attn_resolutions"):
        if type(given[name]) not in (list, tuple) or not all(map(_is_size, given[name])):
            wrong.append(f"{name}={short(given[name])} are no sizes")
    # It is built block by block before its tensors can be compared, and each block has tensors.
    if not wrong and given["num_blocks"] * len(given["channel_mult"]) > len(tensors):
        wrong.append(f"num_blocks={given['num_blocks']} are more than the {len(tensors)} tensors are of")
    names = [f"{kind}.{part}" for kind in ("unet.emb_fourier", "logvar_fourier") for part in ("freqs", "phases")]
    refuse(wrong + [f"{name} is missing" for name in names if name not in tensors], "this is not a network of EDM2")
    frequencies, phases, weight_frequencies, weight_phases = (
        numbers(tensors[name].astype(np.float64) / (2 * np.pi)) for name in names
    )
    settings: Settings = {
        "shape": (given["img_resolution"], given["img_resolution"], given["img_channels"]),
        "num_classes": given["label_dim"],
        "network": {
            "channels": given["model_channels"],
            "multipliers": tuple(given["channel_mult"]),
            "blocks": given["num_blocks"],
            "attention_resolutions": tuple(given["attn_resolutions"]),
            "channels_per_head": given["channels_per_head"],
            "dropout": float(given.get("dropout", 0.0)),
            "frequencies": frequencies,
            "phases": phases,
        },
        "log_variance": {"frequencies": weight_frequencies, "phases": weight_phases},
        "call": {
            "kind": "edm",
            "sigma_data": float(record.state["sigma_data"]),
            "sigma_min": 0.002,
            "sigma_max": 80.0,
        },
        "examples": examples_of(content.get("encoder")),
    }
    module = build(settings)
    shapes = {
        "network": shapes_of(module, (1, *settings["shape"]), (1,), labels=module.num_classes > 0),
        "log_variance": shapes_of(log_variance(settings), (1,)),
    }
    what = "an EDM2UNet of the settings that the file gives"
    params = params_of(shapes, tensors, stored_at(settings), constants(settings), what)
    return Converted("edm2", settings, module, params)


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number <= LARGEST


def examples_of(encoder: Any) -> dict[str, Any]:
    """What the network was trained on: images in [-1, 1], or the latents of an autoencoder, scaled and shifted.

    EDM2 shows the autoencoder images in [0, 1], and not in [-1, 1]; its latents are scale * mean + bias, by channel.
    """
    name = encoder.name if isinstance(encoder, Record) else "StandardRGBEncoder"
    if name != "StabilityVAEEncoder":
        return {"encoder": name}
    scale, bias = (numbers(np.asarray(encoder.state[part])) for part in ("scale", "bias"))
    vae = encoder.state["vae_name"]
    return {"encoder": name, "autoencoder": vae, "scale": scale, "bias": bias, "autoencoder_range": (0.0, 1.0)}


def build(settings: Settings) -> EDM2UNet:
    """The U-Net of these settings, with the frequencies of the file."""
    network = settings["network"]
    embedding = partial(mp_fourier, frequencies=tuple(network["frequencies"]), phases=tuple(network["phases"]))
    module = edm2(
        channels=network["channels"],
        multipliers=tuple(network["multipliers"]),
        blocks=network["blocks"],
        attention_resolutions=tuple(network["attention_resolutions"]),
        channels_per_head=network["channels_per_head"],
        num_classes=settings["num_classes"],
        dropout=network["dropout"],
    )
    return module.clone(noise_embedding=embedding)


def log_variance(settings: Settings) -> EDM2LogVariance:
    """The weight of each noise level, of the parameters `log_variance`."""
    features = settings["log_variance"]
    return EDM2LogVariance(frequencies=tuple(features["frequencies"]), phases=tuple(features["phases"]))


def stored_at(settings: Settings) -> StoredAt:
    """Where NVIDIA's files have each parameter: `enc_8x8_block0` is their `unet.enc.8x8_block0`."""
    per_head = settings["network"]["channels_per_head"]

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        if place[0] == "log_variance":
            return Stored("logvar_linear.weight", linear)
        *layers, kind = (re.sub(r"^(enc|dec)_", r"\1.", name) for name in place[1:])
        name = ".".join(["unet", *layers, kind])
        layout = {0: same, 2: linear, 4: convolution}[len(shape)]
        if layers[-1:] == ["attn_qkv"]:
            layout = qkv("head dim qkv", shape[-1] // 3 // per_head, layout)
        return Stored(name, layout)

    return of


def constants(settings: Settings) -> dict[str, np.ndarray]:
    """The frequencies and phases."""
    parts = {"unet.emb_fourier": settings["network"], "logvar_fourier": settings["log_variance"]}
    return {
        f"{name}.{stored}": 2 * np.pi * np.asarray(part[ours])
        for name, part in parts.items()
        for ours, stored in (("frequencies", "freqs"), ("phases", "phases"))
    }


def recognises(content: Any) -> bool:
    """Whether this is a snapshot of EDM2."""
    record = content.get("ema") if isinstance(content, Mapping) else None
    return isinstance(record, Record) and record.name == "Precond"


FAMILY = Family(recognises, convert, build, stored_at, constants)
