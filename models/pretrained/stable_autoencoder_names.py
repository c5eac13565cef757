"""What Stable Diffusion's autoencoder calls its tensors: in diffusers, now and before 2023, and in CompVis's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .layouts import Place, Stored, StoredAt, Tensors, flat, linear, outputs_first, same


class Names(NamedTuple):
    """The names of one library, within `encoder.` or `decoder.`.

    Attributes:
        library: whose they are.
        ends: of the first and the last layers of both.
        inside: of the layers of a residual block.
        middle: of block {i}, which is the {next} from 1.
        attention: {layer of ours: names of its pieces}.
        down_block, down: of {block} at a {level}, and of the layer behind.
        up_block, up: the same of the decoder, whose levels are counted in their order, {turned}, or in the encoder's.
        ones: axes of one pixel in kernels of the attention.
    """

    library: str
    ends: Mapping[str, str]
    inside: Mapping[str, str]
    middle: str
    attention: Mapping[str, tuple[str, ...]]
    down_block: str
    down: str
    up_block: str
    up: str
    ones: int = 0


def _attention(norm: str, queries: tuple[str, ...], projection: str, start: str) -> dict[str, tuple[str, ...]]:
    named = {"norm": (norm,), "qkv": queries, "proj": (projection,)}
    return {layer: tuple(f"{start}.{name}" for name in names) for layer, names in named.items()}


_BLOCK = {"norm0": "norm1", "conv0": "conv1", "norm1": "norm2", "conv1": "conv2"}
DIFFUSERS = Names(
    library="diffusers",
    ends={"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"},
    inside={**_BLOCK, "skip": "conv_shortcut"},
    middle="mid_block.resnets.{i}",
    attention=_attention("group_norm", ("to_q", "to_k", "to_v"), "to_out.0", "mid_block.attentions.0"),
    down_block="down_blocks.{level}.resnets.{block}",
    down="down_blocks.{level}.downsamplers.0.conv",
    up_block="up_blocks.{turned}.resnets.{block}",
    up="up_blocks.{turned}.upsamplers.0.conv",
)
OLD_DIFFUSERS = DIFFUSERS._replace(
    library="diffusers before 2023",
    attention=_attention("group_norm", ("query", "key", "value"), "proj_attn", "mid_block.attentions.0"),
)
COMPVIS = Names(
    library="CompVis",
    ends={"conv_in": "conv_in", "norm_out": "norm_out", "conv_out": "conv_out"},
    inside={**_BLOCK, "skip": "nin_shortcut"},
    middle="mid.block_{next}",
    attention=_attention("norm", ("q", "k", "v"), "proj_out", "mid.attn_1"),
    down_block="down.{level}.block.{block}",
    down="down.{level}.downsample.conv",
    up_block="up.{level}.block.{block}",
    up="up.{level}.upsample.conv",
    ones=2,
)
LIBRARIES = {names.library: names for names in (DIFFUSERS, OLD_DIFFUSERS, COMPVIS)}

# Between the network and its latents, outside of both halves.
LATENTS = {"encoder/moments": "quant_conv", "decoder/latents": "post_quant_conv"}


def names_in(tensors: Tensors) -> Names:
    """The library that a file is of; diffusers' today if there is nothing that tells."""
    if "encoder.mid.block_1.norm1.weight" in tensors:
        return COMPVIS
    return OLD_DIFFUSERS if "encoder.mid_block.attentions.0.query.weight" in tensors else DIFFUSERS


def stored_at(names: Names, levels: int) -> StoredAt:
    """Where the files of a library have each parameter of a network of so many levels."""

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        found = _names(place, names, levels)
        if place[-1] != "kernel":
            return Stored(found, same)
        if "self_attention" in place:
            return Stored(found, flat(names.ones) if names.ones else linear)
        return Stored(found, outputs_first)

    return of


def _names(place: Place, names: Names, levels: int) -> tuple[str, ...]:
    """The names of the pieces of a parameter."""
    part, layer, *inside, kind = place
    ending = "bias" if kind == "bias" else "weight"
    if name := LATENTS.get(f"{part}/{layer}"):
        return (f"{name}.{ending}",)
    if layer in names.ends:
        return (f"{part}.{names.ends[layer]}.{ending}",)
    if layer == "middle" and inside[-1] in names.attention:
        return tuple(f"{part}.{name}.{ending}" for name in names.attention[inside[-1]])
    numbers = [int(number) for number in re.findall(r"\d+", layer)]
    if layer == "middle":
        i = int(inside[0].removeprefix("block"))
        return (f"{part}.{names.middle.format(i=i, next=i + 1)}.{names.inside[inside[1]]}.{ending}",)
    level = numbers[0] - layer.startswith("down")
    told = {"level": level, "turned": levels - 1 - level, "block": numbers[-1]}
    if layer.startswith(("down", "up")):
        return (f"{part}.{(names.down if layer.startswith('down') else names.up).format(**told)}.{ending}",)
    block = names.down_block if part == "encoder" else names.up_block
    return (f"{part}.{block.format(**told)}.{names.inside[inside[0]]}.{ending}",)
