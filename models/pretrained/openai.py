"""OpenAI's U-Nets: guided diffusion's, and that of Consistency Models (Dhariwal and Nichol 2021; Song et al. 2023).

The two have one naming; the second has four axes where attention projects, the first three. CTM's network for
ImageNet-64 is the second with layers for a second time. None says for which resolution it is, how wide a head of its
attention is, or what its output stands for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
from jax import Array

from ..adm import ADMUNet
from ..embeddings import sinusoidal
from ..unet_blocks import group_norm
from .converted import Converted, Family, Settings
from .layouts import Layout, Place, Stored, StoredAt, Tensors, convolution, flat, linear, qkv, same
from .tensors import layers_of, params_of, refuse_empty, shapes_of

PARTS = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "affine_s": "emb_layers_s.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}
LAYERS = {
    "map_layer0": "time_embed.0",
    "map_layer1": "time_embed.2",
    "map_layer0_s": "time_embed_s.0",
    "map_layer1_s": "time_embed_s.2",
    "out_norm": "out.0",
    "out_conv": "out.2",
}

TIME_SCALE = 1000.0  # of Consistency Models: their network reads 1000 ln(sigma) / 4


def convert(
    content: Any,
    *,
    resolution: int | None = None,
    channels_per_head: int = 64,
    new_attention_order: bool = False,
    schedule: str | None = None,
    consistency: bool = True,
) -> Converted:
    """A state dict of OpenAI's.

    Args:
        content: what `read` gives.
        resolution: side of the images, which the file does not say.
        channels_per_head: of an attention head; 64 in all that was published but the first models of LSUN.
        new_attention_order: of a guided diffusion whose config says `use_new_attention_order`.
        schedule: of a guided diffusion, "cosine" (64 pixels) or "linear" (128 and more).
        consistency: of Consistency Models' files, whether it is one (CD, CT) or the EDM that these were distilled from.
            CTM's layers say what it is.

    Raises:
        ValueError: the content is another, or of a network that is not one of ours, with all that is missing, left over
            or of another shape; or it is not said what is needed.
    """
    tensors: Tensors = content
    if not recognises(content):
        raise ValueError("there is no U-Net of OpenAI's, with tensors such as input_blocks.0.0.weight")
    jumps = any(name.startswith("time_embed_s.") for name in tensors)
    guided_diffusion = not jumps and tensors["middle_block.1.qkv.weight"].ndim == 3
    if resolution is None:
        raise ValueError("a file of OpenAI's does not say the side of its images: give resolution")
    if guided_diffusion and schedule not in ("cosine", "linear"):
        raise ValueError(
            "a file of guided diffusion does not say its schedule: give schedule, cosine (as published for 64 pixels) "
            f"or linear (128 and more); got {schedule!r}"
        )
    order = "qkv head dim" if new_attention_order or not guided_diffusion else "head qkv dim"
    network = network_of(tensors, resolution, channels_per_head, order)
    edm = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
    if guided_diffusion:
        levels = noise_levels(str(schedule))
        call = {"kind": "discrete", "levels": levels, "sigma_min": levels[0], "sigma_max": min(levels[-1], 80.0)}
    else:
        call = {"kind": "trajectory" if jumps else "consistency" if consistency else "edm", **edm}
    labels = tensors.get("label_emb.weight")
    channels = tensors["input_blocks.0.0.weight"].shape[1]
    settings: Settings = {
        "shape": (resolution, resolution, channels),
        "num_classes": 0 if labels is None else labels.shape[0],
        "network": {
            **network,
            "time_scale": 1.0 if guided_diffusion else TIME_SCALE,
            "second_branch": jumps,
        },
        "call": call,
    }
    module = build(settings)
    shapes = shapes_of(module, (1, *settings["shape"]), (1,), labels=module.num_classes > 0, second_time=jumps)
    params = params_of(shapes, tensors, stored_at(settings), {}, "an ADMUNet of this shape")
    return Converted("openai", settings, module, params)


def network_of(tensors: Tensors, resolution: int, channels_per_head: int, order: str) -> dict[str, Any]:
    """What the U-Net is built with, from its tensors."""
    refuse_empty(tensors)
    count = layers_of(tensors, r"input_blocks\.(\d+)\.")
    channels = tensors["input_blocks.0.0.weight"].shape[0]
    convolutions = any(re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name) for name in tensors)

    # The decoder makes a resolution finer in blocks that have one thing more than the others of that resolution.
    finer = [i for i in range(count) if f"output_blocks.{i}.1.conv.weight" in tensors]
    finer += [i for i in range(count) if f"output_blocks.{i}.2.conv.weight" in tensors]
    finer += [i for i in range(count) for j in (1, 2) if f"output_blocks.{i}.{j}.in_layers.0.weight" in tensors]
    levels = 1 + len(finer)
    blocks = count // levels - 1
    if levels * (blocks + 1) != count or sorted(finer) != [(blocks + 1) * (i + 1) - 1 for i in range(levels - 1)]:
        raise ValueError(f"{count} blocks in {levels} resolutions, {sorted(finer)} of which enlarge, are no such U-Net")
    last = [count - 1 - (blocks + 1) * level for level in range(levels)]
    width = [tensors[f"output_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in last]
    if resolution % 2 ** (levels - 1):
        raise ValueError(f"resolution {resolution} cannot be halved {levels - 1} times, as this network does")
    # The first convolution has the channels of the first resolution, which may be a multiple of those without one.
    base = tensors["time_embed.0.weight"].shape[1]
    if width[0] != channels or [w % base for w in width] != [0] * levels:
        raise ValueError(f"the resolutions have {width} channels, the first layer {channels}, the embedding {base}")
    first = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return {
        "channels": base,
        "multipliers": tuple(w // base for w in width),
        "blocks": blocks,
        "attention_resolutions": tuple(
            resolution >> level for level, i in enumerate(last) if f"output_blocks.{i}.1.qkv.weight" in tensors
        ),
        "channels_per_head": channels_per_head,
        "adaptive_scale": first == 2 * tensors["input_blocks.1.0.out_layers.0.weight"].shape[0],
        "resampling_blocks": not convolutions,
        "out_channels": tensors["out.2.weight"].shape[0],
        "qkv": order,
        "projection_axes": tensors["middle_block.1.qkv.weight"].ndim,
    }


def noise_levels(schedule: str, steps: int = 1000) -> tuple[float, ...]:
    """Noise over signal at each step of guided diffusion's, and DiT's, two schedules, ascending.

    Linear: variances from 1e-4 to 0.02 (Ho et al. 2020). Cosine: Nichol and Dhariwal 2021.
    """
    if schedule == "linear":
        variances = np.linspace(1e-4, 0.02, steps)
    else:
        t = np.arange(steps + 1) / steps
        signal = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        variances = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    left = np.cumprod(1 - variances)
    return tuple(np.sqrt((1 - left) / left).tolist())


def build(settings: Settings) -> ADMUNet:
    """The U-Net of these settings."""
    network = settings["network"]
    names = ("channels", "blocks", "channels_per_head", "adaptive_scale", "resampling_blocks", "out_channels")
    return ADMUNet(
        noise_embedding=partial(scaled_sinusoids, features=network["channels"], scale=network["time_scale"]),
        multipliers=tuple(network["multipliers"]),
        attention_resolutions=tuple(network["attention_resolutions"]),
        norm=partial(group_norm, epsilon=1e-5, least=1),
        num_classes=settings["num_classes"],
        second_time=network.get("second_branch", False),
        second_branch=network.get("second_branch", False),
        **{name: network[name] for name in names},
    )


def scaled_sinusoids(t: Array, features: int, scale: float) -> Array:
    """The embedding of a network that reads another multiple of the noise level than EDM's."""
    return sinusoidal(scale * t, features)


def layer_names(settings: Settings) -> dict[str, tuple[str, str]]:
    """{our block: (its name in OpenAI's, and that of the attention in it)}."""
    network = settings["network"]
    blocks, levels = network["blocks"], len(network["multipliers"])
    height, width, _ = settings["shape"]
    sizes = [f"{height >> level}x{width >> level}" for level in range(levels)]
    names = {"enc_" + sizes[0] + "_conv": ("input_blocks.0.0", "")}
    i = 0
    for level, size in enumerate(sizes):
        if level:
            i += 1
            names[f"enc_{size}_down"] = (f"input_blocks.{i}.0{'' if network['resampling_blocks'] else '.op'}", "")
        for block in range(blocks):
            i += 1
            names[f"enc_{size}_block{block}"] = (f"input_blocks.{i}.0", f"input_blocks.{i}.1")
    names[f"dec_{sizes[-1]}_in0"] = ("middle_block.0", "middle_block.1")
    names[f"dec_{sizes[-1]}_in1"] = ("middle_block.2", "")
    i = 0
    for level, size in reversed(list(enumerate(sizes))):
        for block in range(blocks + 1):
            names[f"dec_{size}_block{block}"] = (f"output_blocks.{i}.0", f"output_blocks.{i}.1")
            i += 1
        if level:
            attends = height >> level in network["attention_resolutions"]
            place = f"output_blocks.{i - 1}.{2 if attends else 1}"
            names[f"dec_{sizes[level - 1]}_up"] = (place + ("" if network["resampling_blocks"] else ".conv"), "")
    return names


def stored_at(settings: Settings) -> StoredAt:
    """Where OpenAI's files have each parameter."""
    names, network = layer_names(settings), settings["network"]

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        first, *inside, kind = place
        ending = "bias" if kind == "bias" else "weight"
        if first == "map_label":
            return Stored("label_emb.weight", same)  # a row for each class, here and there
        layout = same if kind != "kernel" else convolution if len(shape) == 4 else linear
        if first in LAYERS:
            return Stored(f"{LAYERS[first]}.{ending}", layout)
        block, attention = names[first]
        if not inside:
            return Stored(f"{block}.{ending}", layout)
        part = inside[-1]
        if part not in ATTENTION:
            return Stored(f"{block}.{PARTS[part]}.{ending}", layout)
        return Stored(f"{attention}.{ATTENTION[part]}.{ending}", _projection(part, kind, shape, network))

    return of


def _projection(part: str, kind: str, shape: tuple[int, ...], network: dict[str, Any]) -> Layout:
    if part == "norm2":
        return same
    layout = flat(network["projection_axes"] - 2 if kind == "kernel" else 0)
    heads = shape[-1] // 3 // network["channels_per_head"]
    return qkv(network["qkv"], heads, layout) if part == "qkv" else layout


def recognises(content: Any) -> bool:
    """Whether this is a state dict of OpenAI's U-Nets."""
    return {"input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight"} <= set(content)


FAMILY = Family(recognises, convert, build, stored_at, lambda settings: {})
