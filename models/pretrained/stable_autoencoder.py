"""Stable Diffusion's autoencoder as the diffusers library stores it, and as CompVis's checkpoints have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..attention import softmax_attention
from ..autoencoder import Autoencoder
from .contents import AUTOENCODER, SETTINGS
from .converted import Converted, Family, Settings
from .folder import is_converted, read_description, read_parameters
from .layouts import Place, Stored, StoredAt, Tensors
from .reader import read
from .stable_autoencoder_names import LIBRARIES, names_in, stored_at
from .tensors import params_of, variables_of

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

GROUPS = 32  # of the norms of every published one; tensors do not say it
FIRST_STAGE = "first_stage_model."  # of the autoencoder within a checkpoint of Stable Diffusion
TRAINED_WITH = ("loss.", "model_ema.")  # beside the autoencoder in its own checkpoints
MOST = 20  # layers of a resolution, and resolutions


def read_autoencoder(folder: str | Path, file: str = AUTOENCODER) -> tuple[Autoencoder, dict[str, Any]]:
    """Read an autoencoder and its parameters from a folder with `config.json` and weights, `vae` in a pipeline.

    The folder can also be one that an autoencoder was converted to.

    `module.apply(params, images, method="encode")` gives mean and log variance of latents without the factor of
    0.18215 that Stable Diffusion's U-Net sees them with.

    Raises:
        FileNotFoundError: the folder has no `config.json` or no such file.
        ImportError: the `safetensors` package is not installed.
        ValueError: settings that `autoencoder_from` refuses, a file that cannot be read, or what `autoencoder` refuses.
    """
    module, path = read_network(folder), Path(folder).expanduser() / file
    if is_converted(folder):
        return module, {"params": read_parameters(folder, read_description(folder, ["autoencoder"]))}
    if not path.is_file():
        others = sorted(other.name for other in path.parent.iterdir())
        raise FileNotFoundError(f"{path.parent} has no {file}, only {others}")
    return module, autoencoder(module, read(path))


def read_network(folder: str | Path) -> Autoencoder:
    """The same without reading the weights."""
    if is_converted(folder):
        return build(read_description(folder, ["autoencoder"])["settings"])
    path = Path(folder).expanduser() / SETTINGS
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
    """Parameters of an autoencoder from the tensors of diffusers, of its names now and before 2023, or CompVis's.

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite; all of them are listed.
    """
    names = names_in(tensors)
    stored = stored_at(names, len(module.multipliers))
    what = "an AutoencoderKL of " + names.library
    found: dict[str, Any] = params_of(variables(module)["params"], tensors, stored, {}, what, ones=True)
    return {"params": found}


def variables(module: Autoencoder) -> Any:
    """The shapes of all that it has."""
    side = 2 ** (len(module.multipliers) - 1)
    return variables_of(module, (1, side, side, module.image_channels))


# ---- As a converted checkpoint ---------------------------------------------------------------------------------------


def convert(content: Any, *, groups: int | None = None) -> Converted:
    """A folder of diffusers, its tensors alone, CompVis's checkpoint of an autoencoder, or one of Stable Diffusion.

    Args:
        content: what `contents` gives.
        groups: of the norms, 32 if not given; a folder of diffusers says it.

    Raises:
        ValueError: the groups do not divide the channels, or are given and the folder says them; settings that
            `autoencoder_from` refuses; tensors that `autoencoder` refuses.
    """
    left_out: list[str]
    if "config" in content:
        if groups is not None:
            raise ValueError("its config.json says groups, which cannot be given")
        module, tensors, prefix, left_out = autoencoder_from(content["config"]), content["tensors"], "", []
    else:
        tensors, prefix, left_out = _tensors(content)
        module = _module(tensors, GROUPS if groups is None else groups)
    settings: Settings = {
        "network": {
            name: getattr(module, name)
            for name in ("channels", "multipliers", "blocks", "latent_channels", "image_channels", "groups")
        },
        "names": names_in(tensors).library,
        "prefix": prefix,
        "left_out": left_out,
    }
    settings["network"]["attention"] = module.attention is not None
    return Converted("autoencoder", settings, module, autoencoder(module, tensors)["params"])


def build(settings: Settings) -> Autoencoder:
    """The network of these settings."""
    network = settings["network"]
    attention = softmax_attention if network["attention"] else None
    return Autoencoder(**{**network, "multipliers": tuple(network["multipliers"]), "attention": attention})


def where(settings: Settings) -> StoredAt:
    """Where its source has each parameter."""
    stored = stored_at(LIBRARIES[settings["names"]], len(settings["network"]["multipliers"]))

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        found = stored(place, shape)
        return found._replace(name=tuple(settings["prefix"] + name for name in found.names()))

    return of


def recognises(content: Any) -> bool:
    """Whether this is an autoencoder, or a checkpoint that has one within."""
    if content.keys() == {"config", "tensors"}:
        return True
    inner = content.get("state_dict", content)
    return isinstance(inner, Mapping) and any(
        name in inner
        for start in ("", FIRST_STAGE)
        for name in (f"{start}encoder.mid.block_1.norm1.weight", f"{start}encoder.mid_block.resnets.0.norm1.weight")
    )


def _tensors(content: Any) -> tuple[dict[str, Any], str, list[str]]:
    """The tensors of the autoencoder, what their names begin with in the file, and what else is there."""
    inner = content.get("state_dict", content)
    prefix = FIRST_STAGE if any(name.startswith(FIRST_STAGE) for name in inner) else ""
    others = [name for name in inner if not name.startswith(prefix) or name.startswith(TRAINED_WITH)]
    tensors = {name.removeprefix(prefix): tensor for name, tensor in inner.items() if name not in set(others)}
    return tensors, prefix, sorted({name.split(".")[0] for name in others})


def _module(tensors: Tensors, groups: int) -> Autoencoder:
    """The network that the shapes of the tensors belong to."""
    names = names_in(tensors)

    def kernel(level: int, block: int) -> str:
        return f"encoder.{names.down_block.format(level=level, block=block)}.conv1.weight"

    widths = [tensors[kernel(level, 0)].shape[0] for level in range(99) if kernel(level, 0) in tensors]
    if groups < 1 or not widths or any(width % widths[0] or width % groups for width in widths):
        raise ValueError(
            f"an autoencoder of {widths} channels, whose norms are not of groups={groups}: give its groups"
        )
    return Autoencoder(
        channels=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        blocks=sum(kernel(0, block) in tensors for block in range(99)),
        latent_channels=tensors["quant_conv.weight"].shape[0] // 2,
        image_channels=tensors["encoder.conv_in.weight"].shape[1],
        groups=groups,
        attention=softmax_attention if f"encoder.{names.attention['qkv'][0]}.weight" in tensors else None,
    )


FAMILY = Family(
    recognises,
    convert,
    build,
    where,
    lambda settings: {},
    "--config.weights of diffusers_autoencoder, or `autoencoder`",
)
