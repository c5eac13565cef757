"""Stable Diffusion's autoencoder as the diffusers library stores it: settings as JSON, and safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..attention import softmax_attention
from ..autoencoder import Autoencoder
from .layouts import Place, StoredAt, Tensors
from .reader import read
from .tensors import by_name, params_of, variables_of

# What `Autoencoder` is built for, by the names of diffusers. A file of settings says these values or nothing.
FIXED = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "latents_mean": None,
    "latents_std": None,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
READ = ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups", "in_channels", "out_channels")
OPTIONAL = ("down_block_types", "up_block_types", "mid_block_add_attention")
# Of the latents' user: `scaling_factor`; of memory and of precision: the others.
WITHOUT_EFFECT = ("scaling_factor", "sample_size", "force_upcast")

MOST = 20  # layers of a resolution, and resolutions

LAYERS = {
    "encoder/conv_in": "encoder.conv_in",
    "encoder/norm_out": "encoder.conv_norm_out",
    "encoder/conv_out": "encoder.conv_out",
    "encoder/moments": "quant_conv",
    "decoder/latents": "post_quant_conv",
    "decoder/conv_in": "decoder.conv_in",
    "decoder/norm_out": "decoder.conv_norm_out",
    "decoder/conv_out": "decoder.conv_out",
}
INSIDE_BLOCK = {"norm0": "norm1", "conv0": "conv1", "norm1": "norm2", "conv1": "conv2", "skip": "conv_shortcut"}
HEADS = {"qkv": ("to_q", "to_k", "to_v"), "proj": ("to_out.0",)}
OLD_HEADS = {"qkv": ("query", "key", "value"), "proj": ("proj_attn",)}


def read_autoencoder(
    folder: str | Path, file: str = "diffusion_pytorch_model.safetensors"
) -> tuple[Autoencoder, dict[str, Any]]:
    """Read an autoencoder and its parameters from a folder with `config.json` and weights, `vae` in a pipeline.

    `module.apply(params, images, method="encode")` gives mean and log variance of latents without the factor of
    0.18215 that Stable Diffusion's U-Net sees them with.

    Raises:
        FileNotFoundError: the folder has no `config.json` or no such file.
        ImportError: the `safetensors` package is not installed.
        ValueError: settings that `autoencoder_from` refuses, a file that cannot be read, or what `autoencoder` refuses.
    """
    module, path = read_network(folder), Path(folder).expanduser() / file
    if not path.is_file():
        others = sorted(other.name for other in path.parent.iterdir())
        raise FileNotFoundError(f"{path.parent} has no {file}, only {others}")
    return module, autoencoder(module, read(path))


def read_network(folder: str | Path) -> Autoencoder:
    """The same without reading the weights."""
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no config.json; give the autoencoder's folder, `vae` in a pipeline")
    return autoencoder_from(json.loads(path.read_text()))


def autoencoder_from(config: Mapping[str, Any]) -> Autoencoder:
    """The network that a `config.json` of diffusers describes, without weights.

    Raises:
        ValueError: settings are missing, not known, or not those of a network that `Autoencoder` can be; all of them
            are listed.
    """
    faults = [f"{name} is missing" for name in READ if name not in config]
    for name, value in config.items():
        if name not in {*FIXED, *READ, *OPTIONAL, *WITHOUT_EFFECT} and not name.startswith("_"):
            faults.append(f"{name}={value!r} is not known")
        elif name in FIXED and value != FIXED[name]:
            faults.append(f"{name}={value!r} is not supported, only {FIXED[name]!r}")
    if not faults and not _few(config["layers_per_block"], config["block_out_channels"]):
        faults.append(f"layers_per_block={config['layers_per_block']} of {config['block_out_channels']} are too many")
    if not faults:
        first, *rest = config["block_out_channels"]
        if any(width % first for width in rest):
            faults.append(f"block_out_channels={config['block_out_channels']} are not multiples of the first")
        for name, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            expected = [kind] * (1 + len(rest))
            if list(config.get(name, expected)) != expected:
                faults.append(f"{name}={config[name]} is not supported, only {expected}")
        if config["in_channels"] != config["out_channels"]:
            faults.append(f"in_channels={config['in_channels']} is not out_channels={config['out_channels']}")
    if faults:
        raise ValueError("the settings are not those of an Autoencoder:\n" + "\n".join(faults))
    return Autoencoder(
        channels=first,
        multipliers=tuple(width // first for width in (first, *rest)),
        blocks=config["layers_per_block"],
        latent_channels=config["latent_channels"],
        image_channels=config["in_channels"],
        groups=config["norm_num_groups"],
        attention=softmax_attention if config.get("mid_block_add_attention", True) else None,
    )


def _few(layers: Any, widths: Any) -> bool:
    """Whether it can be built, which happens layer by layer before its tensors can be compared."""
    return type(layers) is int and 0 < layers <= MOST and type(widths) is list and 0 < len(widths) <= MOST


def autoencoder(module: Autoencoder, tensors: Tensors) -> dict[str, Any]:
    """Parameters of an autoencoder from the tensors of diffusers, of today's names and of those before 2023.

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite; all of them are listed.
    """
    heads = OLD_HEADS if "encoder.mid_block.attentions.0.query.weight" in tensors else HEADS
    what = "an AutoencoderKL of diffusers"
    found: dict[str, Any] = params_of(variables(module), tensors, stored_at(module, heads=heads), {}, what, ones=True)
    return found


def variables(module: Autoencoder) -> Any:
    """The shapes of all that it has."""
    side = 2 ** (len(module.multipliers) - 1)
    return variables_of(module, (1, side, side, module.image_channels))


def stored_at(module: Autoencoder, *, heads: Mapping[str, tuple[str, ...]] = HEADS) -> StoredAt:
    """Where diffusers' files have each parameter; `OLD_HEADS` are the names of attention before 2023."""
    return by_name(partial(_names, levels=len(module.multipliers), heads=heads))


def _names(place: Place, *, levels: int, heads: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The names of the pieces of a parameter."""
    _, part, layer, *inside, kind = place
    ending = "bias" if kind == "bias" else "weight"
    if name := LAYERS.get(f"{part}/{layer}"):
        return (f"{name}.{ending}",)
    if layer == "middle":
        match inside:
            case ["norm"]:
                return (f"{part}.mid_block.attentions.0.group_norm.{ending}",)
            case ["self_attention", projection]:
                return tuple(f"{part}.mid_block.attentions.0.{name}.{ending}" for name in heads[projection])
        block, inner = inside
        return (f"{part}.mid_block.resnets.{block.removeprefix('block')}.{INSIDE_BLOCK[inner]}.{ending}",)
    numbers = [int(number) for number in re.findall(r"\d+", layer)]
    if part == "encoder":
        if layer.startswith("down"):
            return (f"encoder.down_blocks.{numbers[0] - 1}.downsamplers.0.conv.{ending}",)
        start = f"encoder.down_blocks.{numbers[0]}"
    else:
        start = f"decoder.up_blocks.{levels - 1 - numbers[0]}"
        if layer.startswith("up"):
            return (f"{start}.upsamplers.0.conv.{ending}",)
    return (f"{start}.resnets.{numbers[1]}.{INSIDE_BLOCK[inside[0]]}.{ending}",)
