"""Weights of Stable Diffusion's U-Net as the diffusers library stores them: settings as JSON, and safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .stable_unet import StableUNet

# What `StableUNet` is built for, by the names of diffusers. A file of settings says these numbers or nothing.
FIXED = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
}
READ = (
    *("block_out_channels", "layers_per_block", "attention_head_dim", "cross_attention_dim", "norm_num_groups"),
    *("in_channels", "out_channels", "down_block_types", "up_block_types"),
)
# Softmax is float32 here in any case; the others change nothing without the settings above.
WITHOUT_EFFECT = (
    *("sample_size", "upcast_attention", "addition_embed_type_num_heads", "addition_time_embed_dim"),
    *("mid_block_only_cross_attention",),
)
OPTIONAL = ("dropout", "use_linear_projection")

OURS_ALONE = ("map_s", "map_w")
LAYERS = {
    "in_conv": "conv_in",
    "out_norm": "conv_norm_out",
    "out_conv": "conv_out",
    "map_layer0": "time_embedding.linear_1",
    "map_layer1": "time_embedding.linear_2",
}
INSIDE_BLOCK = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "conv_shortcut",
}
INSIDE_ATTENTION = {
    "norm": "norm",
    "proj_in": "proj_in",
    "proj_out": "proj_out",
    "norm0": "transformer_blocks.0.norm1",
    "norm1": "transformer_blocks.0.norm2",
    "norm2": "transformer_blocks.0.norm3",
    "self_attention": "transformer_blocks.0.attn1",
    "cross_attention": "transformer_blocks.0.attn2",
    "mlp0": "transformer_blocks.0.ff.net.0.proj",
    "mlp1": "transformer_blocks.0.ff.net.2",
}
INSIDE_HEADS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}


def stable_from(config: Mapping[str, Any]) -> StableUNet:
    """The network that a `config.json` of diffusers describes, without weights.

    Raises:
        ValueError: settings are missing, not known, or not those of a network that `StableUNet` can be; all of them
            are listed.
    """
    faults = [f"{name} is missing" for name in READ if name not in config]
    known = {*FIXED, *READ, *WITHOUT_EFFECT, *OPTIONAL}
    for name, value in config.items():
        if name not in known and not name.startswith("_"):
            faults.append(f"{name}={value!r} is not known")
        elif name in FIXED and value != FIXED[name]:
            faults.append(f"{name}={value!r} is not supported, only {FIXED[name]!r}")
    _refuse(faults, "the settings are not those of a StableUNet")

    channels = tuple(config["block_out_channels"])
    down, up = config["down_block_types"], config["up_block_types"]
    attends = tuple(kind == "CrossAttnDownBlock2D" for kind in down)
    expected_down = ["CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends]
    expected_up = ["CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]
    heads = config["attention_head_dim"]  # a number of heads under another name, since diffusers began
    heads = (heads,) * len(channels) if isinstance(heads, int) else tuple(heads)
    for name in ("layers_per_block", "cross_attention_dim"):
        if not isinstance(config[name], int):
            faults.append(f"{name}={config[name]!r} is not one number for all resolutions")
    if list(down) != expected_down:
        faults.append(f"down_block_types={list(down)} has others than CrossAttnDownBlock2D and DownBlock2D")
    elif list(up) != expected_up:
        faults.append(f"up_block_types={list(up)} do not mirror down_block_types, expected {expected_up}")
    if not len(channels) == len(attends) == len(heads):
        lengths = f"{len(channels)}, {len(attends)} and {len(heads)}"
        faults.append(f"block_out_channels, down_block_types and attention_head_dim have {lengths} entries")
    if config["in_channels"] != config["out_channels"]:
        faults.append(f"in_channels={config['in_channels']} is not out_channels={config['out_channels']}")
    _refuse(faults, "the settings are not those of a StableUNet")

    return StableUNet(
        channels=channels,
        attends=attends,
        heads=heads,
        blocks=config["layers_per_block"],
        text_features=config["cross_attention_dim"],
        latent_channels=config["in_channels"],
        groups=config["norm_num_groups"],
        dropout=config.get("dropout", 0.0),
    )


def read_stable(
    folder: str | Path,
    second_time: bool = False,
    guided: bool = False,
    file: str = "diffusion_pytorch_model.safetensors",
) -> tuple[StableUNet, dict[str, Any]]:
    """Read a U-Net and its parameters from a folder with `config.json` and weights, `unet` in a pipeline of diffusers.

    Numbers of 16 bits become float32. With `second_time` or `guided` the network has the layers for s or w as well,
    which are zeros: it starts as the network of the file. What the output stands for, noise or v, is in the
    pipeline's other folder `scheduler`, as `prediction_type`.

    Raises:
        FileNotFoundError: the folder has no `config.json` or no such file.
        ImportError: the `safetensors` package is not installed.
        ValueError: settings that `stable_from` refuses; or a file that is not safetensors; or one whose tensors are
            missing, left over, of another shape or not finite, all of which are listed.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; the folder is that of the U-Net, `unet` in a pipeline")
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {file}, only {sorted(other.name for other in folder.iterdir())}")
    config = json.loads((folder / "config.json").read_text())
    module = stable_from(config).clone(second_time=second_time, guided=guided)
    try:
        safetensors = import_module("safetensors")
    except ModuleNotFoundError as error:
        raise ImportError(f"reading {path} needs the package safetensors: pip install safetensors") from error
    try:
        opened = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    with opened as tensors:
        return module, _params(module, tensors, config.get("use_linear_projection", False), path)


def _params(module: StableUNet, tensors: Any, linear: bool, path: Path) -> dict[str, Any]:
    """Parameters from an open file, of which only the header is read before its names and shapes are checked."""
    shapes = _shapes(module)
    names = {place: _name(place, len(module.channels)) for place in shapes if place[0] not in OURS_ALONE}
    expected = {name: _stored_shape(place, shapes[place], linear) for place, name in names.items()}
    found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is not a tensor of this network" for name in found if name not in expected]
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            faults.append(f"{name} has shape {found[name]}, expected {shape}")
    _refuse(faults, f"{path}: not the weights of the network that its config.json describes")

    params: dict[str, Any] = {}
    for place, shape in shapes.items():
        if place in names:
            tensor = tensors.get_tensor(names[place])
            if not jnp.issubdtype(tensor.dtype, jnp.floating) or not np.isfinite(tensor.astype(np.float32)).all():
                faults.append(f"{names[place]} holds something else than finite numbers ({tensor.dtype})")
            array = _array(tensor, shape)
        else:
            array = jnp.zeros(shape)
        layer = params
        for key in place[:-1]:
            layer = layer.setdefault(key, {})
        layer[place[-1]] = array
    _refuse(faults, f"{path}: not numbers that a network can have")
    return {"params": params}


def _shapes(module: StableUNet) -> dict[tuple[str, ...], tuple[int, ...]]:
    """{path of a parameter: its shape}; none of them depends on the size of the latents or the length of the text."""
    side = 2 ** (len(module.channels) - 1)
    x, t = jnp.zeros((1, side, side, module.latent_channels)), jnp.zeros(1)
    text = jnp.zeros((1, 1, module.text_features))
    s, w = (t if module.second_time else None), (t if module.guided else None)
    leaves = jax.tree_util.tree_leaves_with_path(
        jax.eval_shape(module.init, jax.random.key(0), x, t, text, s, w)["params"]
    )
    return {tuple(part.key for part in path): leaf.shape for path, leaf in leaves}


def _name(place: tuple[str, ...], levels: int) -> str:
    """The name that diffusers gives a parameter."""
    layer, *inside, kind = place
    ending = "bias" if kind == "bias" else "weight"
    if layer in LAYERS:
        return f"{LAYERS[layer]}.{ending}"
    parts = re.fullmatch(r"(down|middle|up)(\d*)_(block|attention|conv)(\d*)", layer)
    assert parts is not None, place
    side, level, what, number = parts.groups()
    up = levels - 1 - int(level or 0)
    start = {"down": f"down_blocks.{level}", "middle": "mid_block", "up": f"up_blocks.{up}"}[side]
    if what == "conv":
        return f"{start}.{side}samplers.0.conv.{ending}"
    if what == "block":
        return f"{start}.resnets.{number}.{INSIDE_BLOCK[inside[0]]}.{ending}"
    rest = [INSIDE_ATTENTION[inside[0]], *(INSIDE_HEADS[name] for name in inside[1:])]
    return f"{start}.attentions.{number}.{'.'.join(rest)}.{ending}"


def _stored_shape(place: tuple[str, ...], shape: tuple[int, ...], linear: bool) -> tuple[int, ...]:
    """The shape in the file: PyTorch counts outputs first, and SD 1.5 has 1 x 1 convolutions around its attention."""
    if len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    convolution = (1, 1) if place[-2] in ("proj_in", "proj_out") and place[-1] == "kernel" and not linear else ()
    return (*reversed(shape), *convolution)


def _array(tensor: np.ndarray, shape: tuple[int, ...]) -> Array:
    """A tensor of the file in our shape and order of axes."""
    ours = tensor.transpose(2, 3, 1, 0) if len(shape) == 4 else tensor.reshape(shape[::-1]).T
    return jnp.asarray(ours, jnp.float32)


def _refuse(faults: list[str], what: str) -> None:
    if faults:
        raise ValueError(f"{what}:\n" + "\n".join(faults))
