"""EDM2's own network in PyTorch with random weights, in float64 as far as that goes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import preconditioning
from models.pretrained import convert

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")


def exact_attention(q, k, v):
    """The softmax of `jax.nn` is float32 whatever its inputs are."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)


@pytest.fixture(scope="module", params=["edm2_cond_latent", "edm2_uncond_rgb"])
def published(request):
    with np.load(FIXTURES / f"{request.param}.npz") as file:
        arrays = dict(file)
    converted = convert(FIXTURES / f"{request.param}.network-snapshot-0002345-0.050.pkl")
    return converted.module, {"params": converted.params["network"]}, arrays


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


@pytest.mark.usefixtures("float64")
def test_float64_null_class_and_swapped_weights(published):
    module, params, arrays = published
    module = module.clone(dtype=jnp.float64, attention=exact_attention)
    params = jax.tree.map(lambda a: a.astype(np.float64), params)
    outputs = jax.jit(lambda params, labels: evaluate(module, params, arrays, labels))
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
