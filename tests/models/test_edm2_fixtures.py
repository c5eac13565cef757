"""EDM2's own network in PyTorch with random weights, and what it computes in float64."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import preconditioning
from models.edm2 import edm2
from models.edm2_blocks import mp_fourier
from tests.models.nvidia_pickle import read_tensors

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")


def exact_attention(q, k, v):
    """The softmax of `jax.nn` is float32 whatever its inputs are."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)


def params_of(tensors, channels_per_head):
    """Parameters of `EDM2UNet` from the tensors of the published one: names, axes, and the order of q, k and v."""
    params: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, kind = name.removeprefix("unet.").replace("enc.", "enc_").replace("dec.", "dec_").split(".")
        if path and path[0] in ("emb_fourier", "logvar_fourier", "logvar_linear"):
            continue
        tensor = tensor.astype(np.float32)
        if path and path[-1] == "attn_qkv":
            by_head = tensor.reshape(-1, channels_per_head, 3, *tensor.shape[1:])
            tensor = np.moveaxis(by_head, 2, 0).reshape(tensor.shape)
        layer = params
        for key in path:
            layer = layer.setdefault(key, {})
        layer[kind] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return {"params": params}


@pytest.fixture(scope="module", params=["edm2_cond_latent", "edm2_uncond_rgb"])
def published(request):
    with np.load(FIXTURES / f"{request.param}.npz") as file:
        arrays = dict(file)
    settings = json.loads(str(arrays["init_kwargs_json"]))
    tensors = read_tensors(FIXTURES / f"{request.param}.network-snapshot-0002345-0.050.pkl")
    frequencies, phases = (
        tuple((tensors[f"unet.emb_fourier.{name}"].astype(np.float64) / (2 * np.pi)).tolist())
        for name in ("freqs", "phases")
    )
    module = edm2(
        channels=settings["model_channels"],
        multipliers=tuple(settings["channel_mult"]),
        blocks=settings["num_blocks"],
        attention_resolutions=tuple(settings["attn_resolutions"]),
        channels_per_head=settings["channels_per_head"],
        num_classes=settings["label_dim"],
    ).clone(noise_embedding=partial(mp_fourier, frequencies=frequencies, phases=phases))
    return module, params_of(tensors, module.channels_per_head), arrays


def evaluate(module, params, arrays, labels):
    """Denoised images and, beside them, the bare output, whose errors the skip hides at small noise."""
    raw = []

    def F(x, t):
        raw.append(module.apply(params, x, t, labels))
        return raw[-1]

    # The noise level goes in as float64 where there is one: sines turn its rounding into an error.
    sigma = jnp.asarray(arrays["sigma"]).astype(module.dtype)
    x = jnp.asarray(arrays["x"].transpose(0, 2, 3, 1)).astype(module.dtype)
    return preconditioning.edm(F)(x, sigma), *raw


def error(value, truth):
    """Largest error of an image over the largest number in it."""
    truth = truth.transpose(0, 2, 3, 1)
    return np.max(np.abs(value - truth).max((1, 2, 3)) / np.abs(truth).max((1, 2, 3)))


def labels_of(module, arrays):
    return jnp.asarray(arrays["class_ids"], jnp.int32) if module.num_classes else None


def test_every_tensor_has_its_place(published):
    module, params, arrays = published
    x = jnp.zeros((5, 8, 8, arrays["x"].shape[1]))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(5), labels_of(module, arrays))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)


def test_float32(published, quick_jit):
    module, params, arrays = published
    labels = labels_of(module, arrays)
    denoised, raw = quick_jit(lambda params: evaluate(module, params, arrays, labels))(params)
    assert error(raw, arrays["raw_f64"]) < 1e-5
    assert error(denoised, arrays["denoised_f64"]) < 1e-5


@pytest.mark.usefixtures("float64")
def test_float64_null_class_and_swapped_weights(published, quick_jit):
    module, params, arrays = published
    module = module.clone(dtype=jnp.float64, attention=exact_attention)
    params = jax.tree.map(lambda a: a.astype(np.float64), params)
    outputs = quick_jit(lambda params, labels: evaluate(module, params, arrays, labels))
    labels = labels_of(module, arrays)
    denoised, raw = outputs(params, labels)
    assert raw.dtype == jnp.float64
    assert error(raw, arrays["raw_f64"]) < 1e-11
    assert error(denoised, arrays["denoised_f64"]) < 1e-11
    if labels is not None:
        _, raw = outputs(params, jnp.full_like(labels, module.num_classes))
        assert error(raw, arrays["raw_nolabel_f64"]) < 1e-11

    # Two layers of one shape the wrong way round are seen.
    block = params["params"]["dec_4x4_in0"]
    swapped = block | {"conv_res0": block["conv_res1"], "conv_res1": block["conv_res0"]}
    _, raw = outputs({"params": params["params"] | {"dec_4x4_in0": swapped}}, labels)
    assert error(raw, arrays["raw_f64"]) > 1e-3
