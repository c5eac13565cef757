"""Stable Diffusion's autoencoder beside the outputs of diffusers, with random weights under its old and new names."""

import json
import re
from functools import partial
from pathlib import Path
from shutil import copytree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.autoencoder import Autoencoder
from models.pretrained import read
from models.pretrained import tensors as pretrained_tensors
from models.pretrained.stable_autoencoder import (
    autoencoder,
    autoencoder_from,
    convert,
    read_autoencoder,
    recognises,
    where,
)

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
published = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")
FILE = "diffusion_pytorch_model.safetensors"

# The settings of stabilityai/sd-vae-ft-mse.
PUBLISHED = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


def error(found, truth):
    """Largest error of an example over the largest number in it."""
    axes = tuple(range(1, truth.ndim))
    return np.max(np.abs(found - truth).max(axis=axes) / np.abs(truth).max(axis=axes))


def examples(name):
    """Inputs and outputs, channels last."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: np.moveaxis(file[key], 1, -1) for key in file.files if file[key].ndim == 4}


@published
@pytest.mark.parametrize("name", ["sd_vae_tiny", "sd_vae_tiny_oldnames"])
def test_the_published_network_computes_the_same(name):
    module, params = read_autoencoder(FIXTURES / name)
    arrays = examples(name)
    encode, decode = (jax.jit(partial(module.apply, method=method)) for method in ("encode", "decode"))
    mean, logvar = encode(params, arrays["images"])
    assert error(mean, arrays["mean_f64"]) < 1e-5
    assert error(logvar, arrays["logvar_f64"]) < 1e-5
    assert error(decode(params, arrays["latents"]), arrays["decoded_f64"]) < 1e-5
    if "images_nonsquare" in arrays:
        assert error(encode(params, arrays["images_nonsquare"])[0], arrays["mean_nonsquare_f64"]) < 1e-5


@published
def test_the_comparison_sees_other_weights():
    module, _ = read_autoencoder(FIXTURES / "sd_vae_tiny")
    tensors = read(FIXTURES / "sd_vae_tiny" / FILE)
    arrays = examples("sd_vae_tiny")
    decode = jax.jit(partial(module.apply, method="decode"))
    start = "decoder.mid_block"
    for one, other in (
        (f"{start}.attentions.0.to_q.weight", f"{start}.attentions.0.to_v.weight"),
        (f"{start}.resnets.0.conv1.weight", f"{start}.resnets.0.conv2.weight"),
        (f"{start}.resnets.0.norm1.bias", f"{start}.resnets.1.norm1.bias"),
    ):
        wrong = {**tensors, one: tensors[other], other: tensors[one]}
        assert error(decode(autoencoder(module, wrong), arrays["latents"]), arrays["decoded_f64"]) > 1e-3


# ---- Without a file --------------------------------------------------------------------------------------------------

TINY = Autoencoder(channels=4, multipliers=(1, 2), blocks=1, latent_channels=2, image_channels=3, groups=2)


def tensors_of(params):
    """Tensors of diffusers from our parameters, the way back."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
        part, *layers, kind = (step.key for step in path)
        tensor = np.asarray(leaf)
        tensor = tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
        name = f"{part}." + ".".join(layers)
        for pattern, replacement in (
            (r"^encoder\.moments", "quant_conv"),
            (r"^decoder\.latents", "post_quant_conv"),
            (r"norm_out", "conv_norm_out"),
            (r"middle\.block(\d)", r"mid_block.resnets.\1"),
            (r"middle\.norm", "mid_block.attentions.0.group_norm"),
            (r"middle\.self_attention\.proj", "mid_block.attentions.0.to_out.0"),
            (r"middle\.self_attention\.qkv", "mid_block.attentions.0.qkv"),
            (r"encoder\.down1", "encoder.down_blocks.0.downsamplers.0.conv"),
            (r"decoder\.up1", "decoder.up_blocks.0.upsamplers.0.conv"),
            (r"encoder\.level(\d)_block(\d)", r"encoder.down_blocks.\1.resnets.\2"),
            (r"decoder\.level1_block(\d)", r"decoder.up_blocks.0.resnets.\1"),
            (r"decoder\.level0_block(\d)", r"decoder.up_blocks.1.resnets.\1"),
            (r"(norm|conv)1$", r"\g<1>2"),
            (r"(norm|conv)0$", r"\g<1>1"),
            (r"skip$", "conv_shortcut"),
        ):
            name = re.sub(pattern, replacement, name)
        pieces = np.split(tensor, 3) if name.endswith("qkv") else [tensor]
        heads = [name.replace("qkv", head) for head in ("to_q", "to_k", "to_v")] if len(pieces) > 1 else [name]
        for head, piece in zip(heads, pieces, strict=True):
            found[f"{head}.{'bias' if kind == 'bias' else 'weight'}"] = piece
    return found


@pytest.fixture
def params(randomized):
    """Random parameters."""
    return randomized(TINY, jnp.zeros((1, 4, 4, 3)))


def test_old_and_new_names_are_one_network(params):
    tensors = tensors_of(params)
    jax.tree.map(np.testing.assert_array_equal, autoencoder(TINY, tensors), params)
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in renamed.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    jax.tree.map(np.testing.assert_array_equal, autoencoder(TINY, tensors), params)


def as_compvis(tensors):
    """Tensors of diffusers, of two levels, as CompVis has them, who count those of the decoder as the encoder's."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in (
            (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
            (r"down_blocks\.0\.downsamplers\.0\.conv", "down.0.downsample.conv"),
            (r"up_blocks\.0\.resnets\.(\d)", r"up.1.block.\1"),
            (r"up_blocks\.1\.resnets\.(\d)", r"up.0.block.\1"),
            (r"up_blocks\.0\.upsamplers\.0\.conv", "up.1.upsample.conv"),
            (r"mid_block\.resnets\.0", "mid.block_1"),
            (r"mid_block\.resnets\.1", "mid.block_2"),
            (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
            (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
            (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
            (r"conv_norm_out", "norm_out"),
            (r"conv_shortcut", "nin_shortcut"),
        ):
            name = re.sub(pattern, replacement, name)
        found[name] = tensor[..., None, None] if "attn_1" in name and tensor.ndim == 2 else tensor
    return found


def test_the_files_of_compvis_are_the_same_network(params):
    """As the checkpoint of an autoencoder, with its loss, and within one of Stable Diffusion."""
    tensors = as_compvis(tensors_of(params))
    assert {
        "encoder.mid.attn_1.q.weight",
        "decoder.up.1.upsample.conv.bias",
        "encoder.down.1.block.0.nin_shortcut.bias",
    } <= set(tensors)
    jax.tree.map(np.testing.assert_array_equal, autoencoder(TINY, tensors), params)
    alone = {"state_dict": tensors | {"loss.logvar": np.zeros(())}}
    within = {f"first_stage_model.{name}": tensor for name, tensor in tensors.items()} | {"betas": np.zeros(3)}
    for content, prefix, left_out in ((alone, "", ["loss"]), ({"state_dict": within}, "first_stage_model.", ["betas"])):
        assert recognises(content)
        converted = convert(content, groups=2)
        assert converted.module == TINY
        assert converted.settings["left_out"] == left_out
        jax.tree.map(np.testing.assert_array_equal, converted.params, params["params"])
        back = pretrained_tensors.tensors_of(converted.params, where(converted.settings))
        assert back.keys() == {prefix + name for name in tensors}
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(back[prefix + name], tensor, err_msg=name)
    with pytest.raises(ValueError, match=r"\[100, 200\] channels, whose norms are not of groups=32"):
        convert(as_compvis(tensors_of(wide())))
    for groups in (None, 0):  # 32, of which none would be left of the narrow network's norms
        with pytest.raises(ValueError, match=r"\[4, 8\] channels, whose norms are not of groups="):
            convert(alone, groups=groups)


def wide():
    """Variables of a network whose channels 32 does not divide."""
    shapes = jax.eval_shape(TINY.clone(channels=100, groups=2).init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    return jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)


def test_every_fault_of_a_file_is_listed(params):
    tensors = tensors_of(params)
    tensors["quant_conv.weights"] = tensors.pop("quant_conv.weight")
    name = "decoder.up_blocks.0.resnets.1.conv1.weight"
    tensors[name] = tensors[name][:5]
    with pytest.raises(ValueError, match="not the tensors of an AutoencoderKL of diffusers") as raised:
        autoencoder(TINY, tensors)
    assert str(raised.value).split("\n")[1:] == [
        "quant_conv.weight is missing",
        "quant_conv.weights is not a tensor of this network",
        f"{name} has shape (5, 8, 3, 3), expected (8, 8, 3, 3)",
    ]


def test_the_settings_of_stable_diffusion_are_our_defaults():
    assert autoencoder_from(PUBLISHED) == Autoencoder()
    assert autoencoder_from(PUBLISHED | {"mid_block_add_attention": False}) == Autoencoder(attention=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "relu"}, "act_fn='relu' is not supported, only 'silu'"),
        ({"shift_factor": 0.1}, "shift_factor=0.1 is not supported, only None"),
        ({"use_quant_conv": False}, "use_quant_conv=False is not supported"),
        ({"temperature": 1}, "temperature=1 is not known"),
        ({"out_channels": 1}, "in_channels=3 is not out_channels=1"),
        ({"block_out_channels": [128, 200, 512, 512]}, "are not multiples of the first"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "down_block_types=.* is not supported"),
    ],
)
def test_other_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        autoencoder_from(PUBLISHED | change)


def test_missing_settings_are_listed():
    with pytest.raises(ValueError, match="layers_per_block is missing\nnorm_num_groups is missing"):
        autoencoder_from(
            {key: PUBLISHED[key] for key in PUBLISHED if key not in ("layers_per_block", "norm_num_groups")}
        )


def test_a_folder_without_settings_or_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json; give the autoencoder's folder"):
        read_autoencoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    with pytest.raises(FileNotFoundError, match=rf"has no {FILE}, only \['config\.json'\]"):
        read_autoencoder(tmp_path)


@published
def test_a_folder_that_is_cut_off_is_refused(tmp_path):
    folder = copytree(FIXTURES / "sd_vae_tiny", tmp_path / "vae")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700)
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])
    with pytest.raises(ValueError, match=FILE):
        read_autoencoder(folder)
