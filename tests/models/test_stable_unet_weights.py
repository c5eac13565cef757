"""Networks of the diffusers library with random weights, as files, and what they compute in float64."""

import json
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.stable_unet import StableUNet, stable_1_5, stable_2_1
from models.stable_unet_weights import read_stable, stable_from

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILE = "diffusion_pytorch_model.safetensors"
LAYOUTS = ("stable_1_5", "stable_2_1")

# The settings of the published networks; what they do not say is what diffusers assumes.
PUBLISHED_1_5: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
PUBLISHED_2_1 = PUBLISHED_1_5 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}


@pytest.fixture
def numpy_files():
    """The numpy side of safetensors, where it is installed."""
    return pytest.importorskip("safetensors.numpy")


@pytest.fixture(scope="module", params=LAYOUTS)
def published(request):
    """A network compiled, its parameters, and the inputs and output of the example."""
    pytest.importorskip("safetensors")
    module, params = read_stable(FIXTURES / request.param)
    value = jax.jit(module.apply, compiler_options={"xla_backend_optimization_level": 0})
    return value, params, *example(request.param)


def example(name):
    """Inputs and, in float64, the output, channels last."""
    with np.load(FIXTURES / name / "example.npz") as file:
        arrays = dict(file)
    inputs = tuple(jnp.asarray(a, jnp.float32) for a in (np.moveaxis(arrays["x"], 1, -1), arrays["t"], arrays["text"]))
    return inputs, np.moveaxis(arrays["truth"], 1, -1)


def error(found, truth):
    """Largest error of an example over the largest number in it."""
    return np.max(np.abs(found - truth).max((1, 2, 3)) / np.abs(truth).max((1, 2, 3)))


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def test_the_published_network_computes_the_same(published):
    value, params, inputs, truth = published
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert error(value(params, *inputs), truth) < 1e-5


def test_the_comparison_sees_swapped_layers(published):
    value, params, inputs, truth = published
    middle, attention = (params["params"][f"middle_{name}0"] for name in ("block", "attention"))
    for name, layer, (one, other) in (
        ("middle_block0", middle, ("conv0", "conv1")),
        ("middle_attention0", attention, ("norm0", "norm1")),
        ("middle_attention0", attention, ("proj_in", "proj_out")),
    ):
        wrong = {name: layer | {one: layer[other], other: layer[one]}}
        assert error(value({"params": params["params"] | wrong}, *inputs), truth) > 1e-3


@pytest.mark.usefixtures("numpy_files")
def test_the_comparison_sees_other_heads():
    module, params = read_stable(FIXTURES / "stable_1_5")
    inputs, truth = example("stable_1_5")
    assert error(jax.jit(module.clone(heads=(1, 2)).apply)(params, *inputs), truth) > 1e-2


@pytest.mark.usefixtures("numpy_files")
def test_layers_of_a_second_time_and_a_scale_are_zeros_beside_those_of_the_file():
    module, params = read_stable(FIXTURES / "stable_1_5")
    extended, more = read_stable(FIXTURES / "stable_1_5", second_time=True, guided=True)
    assert extended == module.clone(second_time=True, guided=True)
    for layer in ("map_s", "map_w"):
        np.testing.assert_array_equal(more["params"].pop(layer)["kernel"], np.zeros((4, 4), np.float32))
    jax.tree.map(np.testing.assert_array_equal, more, params)


def test_half_precision_files_are_read_as_float32(numpy_files, tmp_path):
    copytree(FIXTURES / "stable_1_5", tmp_path / "unet")
    tensors = numpy_files.load_file(tmp_path / "unet" / FILE)
    assert {a.dtype for a in tensors.values()} == {np.dtype("float16")}
    rounded = {name: np.asarray(a, jnp.bfloat16) for name, a in tensors.items()}
    numpy_files.save_file(rounded, tmp_path / "unet" / "other.safetensors")
    _, params = read_stable(tmp_path / "unet", file="other.safetensors")
    expected = rounded["up_blocks.1.resnets.1.conv_shortcut.weight"].astype(np.float32)
    found = params["params"]["up0_block1"]["skip"]["kernel"]
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected.transpose(2, 3, 1, 0))


# ---- Settings --------------------------------------------------------------------------------------------------------


def test_the_published_settings_are_the_presets():
    assert stable_from(PUBLISHED_1_5) == stable_1_5()
    assert stable_from(PUBLISHED_2_1) == stable_2_1()


def test_the_settings_of_a_file():
    one, other = (stable_from(json.loads((FIXTURES / name / "config.json").read_text())) for name in LAYOUTS)
    shared = StableUNet(text_features=6, latent_channels=4, groups=2)
    assert one == shared.clone(channels=(4, 8), attends=(True, False), heads=(2, 2), blocks=2)
    assert other == shared.clone(channels=(4, 8, 12), attends=(True, True, False), heads=(1, 2, 3), blocks=1)


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"time_cond_proj_dim": 256}, ["time_cond_proj_dim=256 is not supported, only None"]),
        (
            {"addition_embed_type": "text_time", "transformer_layers_per_block": [1, 2, 10]},  # SDXL
            [
                "addition_embed_type='text_time' is not supported, only None",
                "transformer_layers_per_block=[1, 2, 10] is not supported, only 1",
            ],
        ),
        ({"freq_shift": 1, "new_setting": 3}, ["freq_shift=1 is not supported, only 0", "new_setting=3 is not known"]),
        ({"_class_name": "Transformer"}, ["_class_name='Transformer' is not supported, only 'UNet2DConditionModel'"]),
        ({"in_channels": 9}, ["in_channels=9 is not out_channels=4"]),
        ({"layers_per_block": [1, 2, 2, 2]}, ["layers_per_block=[1, 2, 2, 2] is not one number for all resolutions"]),
        (
            {"attention_head_dim": [5, 10, 20]},
            ["block_out_channels, down_block_types and attention_head_dim have 4, 4 and 3 entries"],
        ),
        (
            {"down_block_types": ["AttnDownBlock2D", *PUBLISHED_1_5["down_block_types"][1:]]},
            ["down_block_types=['AttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'] "
             "has others than CrossAttnDownBlock2D and DownBlock2D"],
        ),
        (
            {"up_block_types": ["UpBlock2D"] * 4},
            ["up_block_types=['UpBlock2D', 'UpBlock2D', 'UpBlock2D', 'UpBlock2D'] do not mirror down_block_types, "
             "expected ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D']"],
        ),
    ],
)  # fmt: skip
def test_unsupported_settings_are_refused_by_name(changes, faults):
    with pytest.raises(ValueError, match="the settings are not those of a StableUNet") as refusal:
        stable_from(PUBLISHED_1_5 | changes)
    assert str(refusal.value).split("\n")[1:] == faults


def test_missing_settings_are_refused_by_name():
    wanted = ("in_channels", "cross_attention_dim")
    with pytest.raises(ValueError, match="the settings are not those") as refusal:
        stable_from({name: value for name, value in PUBLISHED_1_5.items() if name not in wanted})
    assert str(refusal.value).split("\n")[1:] == ["cross_attention_dim is missing", "in_channels is missing"]


# ---- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [False, True])
def test_every_fault_of_a_file_is_listed(numpy_files, tmp_path, linear):
    copytree(FIXTURES / LAYOUTS[linear], tmp_path / "unet")
    tensors = numpy_files.load_file(tmp_path / "unet" / FILE)
    tensors["mid_block.resnets.0.conv1.kernel"] = tensors.pop("mid_block.resnets.0.conv1.weight")
    del tensors["conv_in.bias"]
    tensors["time_embedding.linear_1.weight"] = np.ascontiguousarray(tensors["time_embedding.linear_1.weight"].T)
    place = "down_blocks.0.attentions.0.proj_in.weight"
    tensors[place] = tensors[place].reshape((4, 4, 1, 1) if linear else (4, 4))
    numpy_files.save_file(tensors, tmp_path / "unet" / FILE)
    with pytest.raises(
        ValueError, match=r"safetensors: not the weights of the network that its config\.json"
    ) as refusal:
        read_stable(tmp_path / "unet")
    stored, expected = ("(4, 4, 1, 1)", "(4, 4)") if linear else ("(4, 4)", "(4, 4, 1, 1)")
    assert sorted(str(refusal.value).split("\n")[1:]) == [
        "conv_in.bias is missing",
        f"{place} has shape {stored}, expected {expected}",
        "mid_block.resnets.0.conv1.kernel is not a tensor of this network",
        "mid_block.resnets.0.conv1.weight is missing",
        "time_embedding.linear_1.weight has shape (4, 16), expected (16, 4)",
    ]


def test_numbers_that_no_network_has_are_listed(numpy_files, tmp_path):
    copytree(FIXTURES / "stable_1_5", tmp_path / "unet")
    tensors = numpy_files.load_file(tmp_path / "unet" / FILE)
    tensors["conv_in.bias"][2] = np.nan
    tensors["conv_out.bias"] = np.zeros(4, np.int32)
    numpy_files.save_file(tensors, tmp_path / "unet" / FILE)
    with pytest.raises(ValueError, match="not numbers that a network can have") as refusal:
        read_stable(tmp_path / "unet")
    assert sorted(str(refusal.value).split("\n")[1:]) == [
        "conv_in.bias holds something else than finite numbers (float16)",
        "conv_out.bias holds something else than finite numbers (int32)",
    ]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json; the folder is that of the U-Net"):
        read_stable(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_1_5))
    with pytest.raises(
        FileNotFoundError, match=r"has no diffusion_pytorch_model\.safetensors, only \['config\.json'\]"
    ):
        read_stable(tmp_path)
    (tmp_path / FILE).write_text("no tensors")
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"safetensors: not a readable safetensors file"):
        read_stable(tmp_path)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)  # an import of it raises ModuleNotFoundError
    with pytest.raises(ImportError, match=r"needs the package safetensors: pip install safetensors"):
        read_stable(FIXTURES / "stable_1_5")
