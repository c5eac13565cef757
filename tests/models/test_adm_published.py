"""The published networks in PyTorch with random weights, and what they compute in float64."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import preconditioning
from models.adm import adm
from models.unet_blocks import group_norm
from tests.models.nvidia_pickle import read_state_dict, read_tensors

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")


def params_of(tensors, channels_per_head):
    """Parameters of `ADMUNet` from the tensors of a DhariwalUNet: names, axes, and the order of q, k and v."""
    params: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, kind = name.removeprefix("model.").replace("enc.", "enc_").replace("dec.", "dec_").split(".")
        if kind == "resample_filter":
            continue
        if path[-1] == "qkv":
            by_head = tensor.reshape(-1, channels_per_head, 3, *tensor.shape[1:])
            tensor = np.moveaxis(by_head, 2, 0).reshape(tensor.shape)
        if path[-1] in ("qkv", "proj"):
            path.insert(-1, "self_attention")
            tensor = tensor.reshape(tensor.shape[:2]) if kind == "weight" else tensor
        if kind == "weight":
            kind = "scale" if tensor.ndim == 1 else "kernel"
        layer = params
        for key in path:
            layer = layer.setdefault(key, {})
        layer[kind] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return {"params": params}


# Layers of OpenAI's U-Net with two resolutions of 8 and 4 pixels and one block in each.
OPENAI = {
    "time_embed.0": "map_layer0",
    "time_embed.2": "map_layer1",
    "input_blocks.0.0": "enc.8x8_conv",
    "input_blocks.1.0": "enc.8x8_block0",
    "input_blocks.2.0": "enc.4x4_down",
    "input_blocks.3.0": "enc.4x4_block0",
    "input_blocks.3.1": "enc.4x4_block0",
    "middle_block.0": "dec.4x4_in0",
    "middle_block.1": "dec.4x4_in0",
    "middle_block.2": "dec.4x4_in1",
    "output_blocks.0.0": "dec.4x4_block0",
    "output_blocks.0.1": "dec.4x4_block0",
    "output_blocks.1.0": "dec.4x4_block1",
    "output_blocks.1.1": "dec.4x4_block1",
    "output_blocks.1.2": "dec.8x8_up",
    "output_blocks.2.0": "dec.8x8_block0",
    "output_blocks.3.0": "dec.8x8_block1",
    "out.0": "out_norm",
    "out.2": "out_conv",
}
OPENAI_INSIDE = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
    "norm": "norm2",
    "qkv": "qkv",
    "proj_out": "proj",
}


def edm_names(tensors, channels_per_head):
    """An OpenAI network under EDM's names and with EDM's order of q, k and v."""
    renamed = {"map_label.weight": tensors.pop("label_emb.weight").T}
    for name, tensor in tensors.items():
        layer = next(layer for layer in OPENAI if name.startswith(f"{layer}."))
        *inside, kind = name.removeprefix(f"{layer}.").rsplit(".", 1)
        if inside == ["qkv"]:
            tensor = np.moveaxis(tensor.reshape(3, -1, channels_per_head, *tensor.shape[1:]), 0, 2).reshape(
                tensor.shape
            )
        renamed[".".join([OPENAI[layer], *(OPENAI_INSIDE[part] for part in inside), kind])] = tensor
    return renamed


@pytest.fixture(scope="module", params=["edm_adm_cond", "edm_adm_cond_attention"])
def published(request):
    with np.load(FIXTURES / f"{request.param}.npz") as file:
        arrays = dict(file)
    settings = json.loads(str(arrays["init_kwargs_json"]))
    module = adm(
        channels=settings["model_channels"],
        multipliers=tuple(settings["channel_mult"]),
        blocks=settings["num_blocks"],
        attention_resolutions=tuple(settings["attn_resolutions"]),
        num_classes=settings["label_dim"],
        augment_features=settings.get("augment_dim", 0),
    )
    tensors = read_tensors(FIXTURES / f"{request.param}.network-snapshot-000456.pkl")
    return module, params_of(tensors, module.channels_per_head), arrays


def images(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1), jnp.float32)


def error(value, truth):
    """Largest error of an image over the largest number in it."""
    truth = truth.transpose(0, 2, 3, 1)
    return np.max(np.abs(value - truth).max((1, 2, 3)) / np.abs(truth).max((1, 2, 3)))


def test_raw_output_and_denoiser(published, quick_jit):
    module, params, arrays = published
    x, sigma = images(arrays["x"]), jnp.asarray(arrays["sigma"])
    ids = jnp.asarray(arrays["class_ids"], jnp.int32)
    augment = jnp.asarray(arrays["augment_labels"]) if "augment_labels" in arrays else None
    null = jnp.full_like(ids, module.num_classes)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, sigma, ids)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)

    # The denoiser, and beside it the network's bare output, whose errors the skip hides at small noise.
    @quick_jit
    def outputs(params, labels, augment):
        raw = []

        def F(x, t):
            raw.append(module.apply(params, x, t, labels, augment=augment))
            return raw[-1]

        return preconditioning.edm(F)(x, sigma), *raw

    absent = None if augment is None else jnp.zeros_like(augment)
    denoised, raw = outputs(params, ids, augment)
    assert error(raw, arrays["raw_f64"]) < 1e-5
    assert error(denoised, arrays["denoised_f64"]) < 1e-5
    assert error(outputs(params, null, augment)[1], arrays["raw_nolabel_f64"]) < 1e-5
    if augment is not None:
        assert error(outputs(params, ids, absent)[1], arrays["raw_noaugment_f64"]) < 1e-5

    # Two layers of one shape the wrong way round are seen.
    name = next(name for name in params["params"] if name.endswith("in0"))
    block = params["params"][name]
    swapped = params["params"] | {name: block | {"conv0": block["conv1"], "conv1": block["conv0"]}}
    assert error(outputs({"params": swapped}, ids, augment)[1], arrays["raw_f64"]) > 1e-3


def test_network_of_consistency_models_is_this_one(quick_jit):
    with np.load(FIXTURES / "openai_cm_cond.npz") as file:
        arrays = dict(file)
    settings = json.loads(str(arrays["config_json"]))
    module = adm(
        channels=settings["model_channels"],
        multipliers=tuple(settings["channel_mult"]),
        blocks=settings["num_res_blocks"],
        attention_resolutions=(4,),
        channels_per_head=settings["num_head_channels"],
        num_classes=settings["num_classes"],
    ).clone(norm=partial(group_norm, epsilon=1e-5, least=1))
    tensors = edm_names(read_state_dict(FIXTURES / "openai_cm_cond.pt"), module.channels_per_head)
    params = params_of(tensors, module.channels_per_head)
    labels, t = jnp.asarray(arrays["class_ids"], jnp.int32), jnp.asarray(arrays["timesteps"])
    out = quick_jit(module.apply)(params, images(arrays["x"]), t, labels)
    assert error(out, arrays["out_f64"]) < 3e-5
