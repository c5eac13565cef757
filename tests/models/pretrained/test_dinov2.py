"""Weights of DINOv2 under the names of three libraries, and timm's outputs."""

from pathlib import Path

import jax
import numpy as np
import pytest

from models import dinov2 as network
from models.dinov2 import DINOv2
from models.pretrained import read
from models.pretrained.dinov2 import dinov2
from tests.models.pretrained.dinov2_files import as_hugging_face, as_meta, timm_tensors

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
published = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks are not here")


def error(found, truth):
    """Largest error of an image over the largest number in it."""
    axes = tuple(range(1, truth.ndim))
    return np.max(np.abs(found - truth).max(axes) / np.abs(truth).max(axes))


def example(name):
    with np.load(FIXTURES / f"{name}.npz") as file:
        return np.moveaxis(file["x"], 1, -1), file["tokens_f64"], file["class_token_f64"]


@published
@pytest.mark.parametrize(
    ("name", "heads", "shape"), [("dinov2_tiny_42", 3, (24, 2, 3)), ("dinov2_tiny_518", 2, (37, 1, 37))]
)
def test_the_published_network_computes_the_same(name, heads, shape):
    module, variables = dinov2(read(FIXTURES / f"{name}.timm.pth"), heads=heads)
    assert module.resample is network.smoothed
    x, tokens, class_token = example(name)
    found = np.asarray(jax.jit(module.apply)(variables, x))
    assert error(found, tokens) < 1e-5
    assert error(found[:, 0], class_token) < 1e-5


@published
def test_the_comparison_sees_swapped_heads_and_other_positions():
    x, tokens, _ = example("dinov2_tiny_518")
    tensors = read(FIXTURES / "dinov2_tiny_518.timm.pth")
    module, variables = dinov2(tensors, heads=2)
    for resample in (network.to_scale, network.to_size):
        assert error(jax.jit(module.clone(resample=resample).apply)(variables, x), tokens) > 1e-3
    name = "blocks.0.attn.qkv.weight"
    swapped = tensors[name].reshape(3, 2, 8, 16)
    queries = np.stack([swapped[0, ::-1], *swapped[1:]]).reshape(48, 16)
    assert error(jax.jit(module.apply)(dinov2({**tensors, name: queries}, heads=2)[1], x), tokens) > 1e-3


# ---- Without a file --------------------------------------------------------------------------------------------------

TINY = DINOv2(width=12, depth=2, heads=3, patch=2, table=3)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("names", "resample"),
    [(dict, network.smoothed), (as_meta, network.to_scale), (as_hugging_face, network.to_size)],
)
def test_three_libraries_have_one_network(names, resample, gated):
    module, variables = dinov2(names(timm_tensors(gated)), heads=3)
    assert module == TINY.clone(gated=gated, resample=resample)
    jax.tree.map(np.testing.assert_array_equal, variables, dinov2(timm_tensors(gated), heads=3)[1])
    initial = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 6, 6, 3), np.float32))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, initial)


@pytest.mark.parametrize("names", [dict, as_meta, as_hugging_face])
def test_every_fault_of_a_file_is_listed(names):
    tensors = names(timm_tensors())
    missing = next(name for name in tensors if name.endswith("1.norm1.bias"))
    tensors["stray"] = tensors.pop(missing)
    wrong = next(name for name in tensors if name.endswith("0.norm2.weight"))
    tensors[wrong] = tensors[wrong][:5]
    with pytest.raises(ValueError, match="not the tensors of DINOv2") as raised:
        dinov2(tensors, heads=3)
    assert str(raised.value).split("\n")[1:] == [
        f"{missing} is missing",
        "stray is not a tensor of this network",
        f"{wrong} has shape (5,), expected (12,)",
    ]


def test_registers_are_refused():
    tensors = as_meta(timm_tensors()) | {"register_tokens": np.zeros((1, 4, 12), np.float32)}
    with pytest.raises(ValueError, match="register_tokens is not a tensor of this network"):
        dinov2(tensors, heads=3)


@pytest.mark.parametrize(
    ("change", "heads", "message"),
    [
        ({}, None, r"no published DINOv2 is 12 wide, only \[384, 768, 1024, 1536\]: give its heads="),
        ({}, 5, "a width of 12 is not divisible by heads=5"),
        ({"pos_embed": np.zeros((1, 9, 12), np.float32)}, 3, r"patch_embed.proj.weight and pos_embed have shapes"),
        ({"patch_embed.proj.weight": np.zeros((12, 12), np.float32)}, 3, "expected a tensor of 4 axes"),
    ],
)
def test_what_is_no_network_is_refused(change, heads, message):
    with pytest.raises(ValueError, match=message):
        dinov2(timm_tensors() | change, heads=heads)
    with pytest.raises(ValueError, match=r"patch_embed\.proj\.weight is not there"):
        dinov2({"features.0.weight": np.zeros((64, 3, 3, 3))})
