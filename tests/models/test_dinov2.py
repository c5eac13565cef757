"""DINOv2's form, and its positions in the conventions of three libraries."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import dinov2
from models.dinov2 import DINOV2_SIZES, DINOv2
from models.pretrained import read

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "dinov2_tiny_518.npz"
RESAMPLE = (dinov2.to_scale, dinov2.to_size, dinov2.smoothed)
TINY = DINOv2(width=12, depth=2, heads=3, patch=2, table=3)


def count(module):
    side = module.patch * module.table
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


# They count the token that masked patches have in training, which is not here.
@pytest.mark.parametrize(
    ("size", "published"), [("S", 22_056_576), ("B", 86_580_480), ("L", 304_368_640), ("g", 1_136_480_768)]
)
def test_parameters_of_the_published_sizes(size, published):
    assert count(DINOv2(*DINOV2_SIZES[size], gated=size == "g")) == published - DINOV2_SIZES[size].width


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize(("rows", "columns"), [(5, 14), (20, 3)])
def test_positions_that_are_all_alike_stay_what_they_are(resample, rows, columns):
    found = resample(jnp.full((9, 9, 2), jnp.array([3.0, -7.0])), rows, columns)
    np.testing.assert_allclose(found, np.broadcast_to([3.0, -7.0], (rows, columns, 2)), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_kernel_between_numbers_and_beyond_the_border(axis):
    line = np.random.default_rng(0).standard_normal(5)
    table = jnp.asarray(np.broadcast_to(line[:, None] if axis == 0 else line, (5, 5))[..., None], jnp.float32)
    found = np.asarray(dinov2.to_size(table, 10, 10))[..., 0]
    found = found[:, 7] if axis == 0 else found[7]
    # Keys' kernel with -3/4 at 7/4, 3/4, 1/4 and 5/4. Beyond the first number it goes on for ever.
    weights = np.array([-0.03515625, 0.26171875, 0.87890625, -0.10546875])
    np.testing.assert_allclose(found[[4, 6]], [weights @ line[:4], weights @ line[1:]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0], weights @ line[[0, 0, 0, 1]], rtol=1e-5, atol=1e-6)


def test_metas_grid_is_a_tenth_of_a_patch_larger():
    line = np.random.default_rng(0).standard_normal(81)
    table = jnp.asarray(np.broadcast_to(line, (81, 81))[..., None], jnp.float32)
    # 81 / 8.1 = 10, so the sources are 4.5, 14.5 and so on, half-way between two numbers.
    pieces = line[:80].reshape(8, 10)
    expected = 0.59375 * (pieces[:, 4] + pieces[:, 5]) - 0.09375 * (pieces[:, 3] + pieces[:, 6])
    np.testing.assert_allclose(dinov2.to_scale(table, 8, 8)[3, :, 0], expected, rtol=1e-4, atol=1e-5)


def test_conventions_differ():
    table = jax.random.normal(jax.random.key(0), (37, 37, 4))
    found = [np.asarray(resample(table, 16, 16)) for resample in RESAMPLE]
    assert min(np.abs(found[i] - found[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1


@pytest.mark.skipif(not FIXTURE.is_file(), reason="the published positions are not here")
@pytest.mark.parametrize(
    ("resample", "name"),
    [(dinov2.to_size, "pos16_hf_transformers_f64"), (dinov2.smoothed, "pos16_timm_antialias_f32")],
)
def test_published_positions(resample, name):
    with np.load(FIXTURE) as file:
        truth = file[name]
    positions = read(FIXTURE.with_name("dinov2_tiny_518.timm.pth"))["pos_embed"]
    found = np.asarray(resample(jnp.asarray(positions[0, 1:].reshape(37, 37, -1)), 16, 16)).reshape(256, -1)
    assert np.abs(found - truth).max() < 1e-5 * np.abs(truth).max()


def test_the_positions_are_those_of_the_rows_and_columns_of_patches(randomized):
    variables = randomized(TINY, jnp.zeros((1, 6, 6, 3)))
    asked = []

    def resample(table, rows, columns):
        asked.append((table.shape, rows, columns))
        return dinov2.to_size(table, rows, columns)

    module = TINY.clone(resample=resample)
    for height, width in ((6, 6), (4, 10)):
        tokens = jax.eval_shape(module.apply, variables, jnp.zeros((2, height, width, 3)))
        assert tokens.shape == (2, 1 + height * width // 4, 12)
    assert asked == [((3, 3, 12), 2, 5)]  # of its own size it asks for none


def test_the_exact_gelu_and_the_gate(randomized):
    x = jax.random.normal(jax.random.key(1), (1, 6, 6, 3))
    for module in (TINY, TINY.clone(gated=True)):
        variables = randomized(module, x)
        mlp = (
            variables["params"]["block0"]["mlp0"]["kernel"].shape[-1],
            variables["params"]["block0"]["mlp1"]["kernel"].shape[0],
        )
        assert mlp == ((64, 32) if module.gated else (48, 48))  # 2/3 of 48, in multiples of 8, twice
        tokens = np.asarray(module.apply(variables, x))
        np.testing.assert_allclose(tokens, by_hand(module, variables["params"], x), rtol=1e-4, atol=1e-4)


def by_hand(module, params, x):
    """The network for the size of its table, in float64."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    patches = np.asarray(x, np.float64).reshape(1, 3, 2, 3, 2, 3).swapaxes(2, 3).reshape(1, 9, 12)

    def dense(h, layer):
        return h @ layer["kernel"] + layer["bias"]

    def norm(h, layer):
        h = h - h.mean(-1, keepdims=True)
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"] + layer["bias"]

    def attend(h, layer):
        q, k, v = np.moveaxis(dense(h, layer["qkv"]).reshape(1, 10, 3, 3, 4), 2, 0)
        logits = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / 2)
        out = np.einsum("bhqk,bkhd->bqhd", logits / logits.sum(-1, keepdims=True), v)
        return dense(out.reshape(1, 10, 12), layer["proj"])

    def gelu(h):
        return h * np.vectorize(math.erfc)(-h / np.sqrt(2)) / 2

    def mlp(h, block):
        h = dense(h, block["mlp0"])
        if module.gated:
            gate, value = np.split(h, 2, axis=-1)
            return dense(gate / (1 + np.exp(-gate)) * value, block["mlp1"])
        return dense(gelu(h), block["mlp1"])

    start = np.broadcast_to(params["class_token"], (1, 1, 12))
    h = np.concatenate([start, dense(patches, params["embed"])], axis=1) + params["positions"]
    for i in range(2):
        block = params[f"block{i}"]
        h = h + block["scale0"] * attend(norm(h, block["norm0"]), block["self_attention"])
        h = h + block["scale1"] * mlp(norm(h, block["norm1"]), block)
    return norm(h, params["norm"])


def test_images_of_broken_patches_are_refused():
    with pytest.raises(ValueError, match="6x7 pixels is not divisible into patches of 2"):
        jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 6, 7, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_normalised_as_imagenets(channels):
    white = jnp.full((1, 2, 2, channels), 255, jnp.uint8)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(dinov2.normalised(white)[0, 0, 0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="3 channels, or 1 that is repeated; got 2"):
        dinov2.normalised(white[..., :1].repeat(2, axis=-1))
