"""Inception-v3 beside the outputs of torch-fidelity and pytorch-fid, with weights that are a rule."""

import json
import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.resize import tf1_bilinear, torch_bilinear
from models import inception
from models.inception import SIDE, InceptionV3
from models.pretrained.inception import inception as convert
from tests.drawn import inception_tensor

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "inception_features.npz"
published = pytest.mark.skipif(not FIXTURE.is_file(), reason="the published features are not here")
TAPS = {
    "pool64": "t64",
    "pool192": "t192",
    "pool768": "t768",
    "pool2048": "t2048",
    "spatial": "sfid2023",
    "logits_unbiased": "logits_unbiased",
    "logits": "logits",
}


@cache
def fixture():
    with np.load(FIXTURE) as file:
        return dict(file)


@cache
def tensors():
    """The weights, found to be the published ones by their sums, first and last numbers."""
    told = fixture()
    found = {
        name: inception_tensor(name, json.loads(shape))
        for name, shape in zip(told["weight_names"], told["weight_shapes"], strict=True)
    }
    sums = [a.sum(dtype=np.float64) for a in found.values()]
    np.testing.assert_allclose(sums, told["weight_sum_f64"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose([a.flat[0] for a in found.values()], told["weight_first"], rtol=1e-6)
    np.testing.assert_allclose([a.flat[-1] for a in found.values()], told["weight_last"], rtol=1e-6)
    return found


def inputs(mode, numbers=range(4)):
    """Images of these numbers as one or the other library gives them to the network."""
    told = fixture()
    resize = tf1_bilinear if mode == "torchfidelity_tf1" else torch_bilinear
    images = [resize(jnp.asarray(told[told["image_order"][number]])[None], SIDE) for number in numbers]
    x = jnp.concatenate(images)
    return (x - 128) / 128 if mode == "torchfidelity_tf1" else 2 * (x / 255) - 1


# Operation by operation: what one wrong operation changes is then seen without compiling the network again.
def error(mode, x, variables, tap="pool2048", numbers=range(4)):
    """Largest error of an image over the largest number in it."""
    found = np.asarray(getattr(InceptionV3().apply(variables, x), tap))
    truth = fixture()[f"{mode}__{TAPS[tap]}"][list(numbers)]
    return np.max(np.abs(found - truth).max(1) / np.abs(truth).max(1))


@pytest.mark.slow
@published
def test_features_of_the_published_implementations():
    variables = convert(tensors())
    for mode in ("torchfidelity_tf1", "pytorchfid_halfpixel"):
        taps = InceptionV3().apply(variables, inputs(mode))
        for tap, name in TAPS.items():
            truth = fixture()[f"{mode}__{name}"]
            found = np.abs(np.asarray(getattr(taps, tap)) - truth).max(1) / np.abs(truth).max(1)
            # The coordinates of a half-pixel resize are rounded in float32, which the largest image shows.
            tolerance = 1e-4 if (mode, tap) == ("pytorchfid_halfpixel", "spatial") else 1e-5
            assert found.max() < tolerance, (mode, tap)


@pytest.mark.slow
@published
def test_the_comparison_sees_what_other_inceptions_do(monkeypatch):
    variables, x = convert(tensors()), inputs("torchfidelity_tf1", [0])
    assert error("torchfidelity_tf1", x, variables, numbers=[0]) < 1e-5
    # Torchvision's: padding is averaged too, an average in the last block, and the usual epsilon.
    for name, wrong in (
        ("average_pool", partial(inception.average_pool, count_include_pad=True)),
        ("max_pool", inception.average_pool),
        ("EPSILON", 1e-5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(inception, name, wrong)
            assert error("torchfidelity_tf1", x, variables, numbers=[0]) > 1e-4, name


@pytest.mark.slow
@published
def test_the_comparison_sees_windows_that_lie_the_other_way():
    block = {name: tensor for name, tensor in tensors().items() if name.startswith("Mixed_6b.branch7x7dbl")}
    one, other = "Mixed_6b.branch7x7dbl_2.conv.weight", "Mixed_6b.branch7x7dbl_3.conv.weight"
    swapped = tensors() | {one: block[other].swapaxes(2, 3), other: block[one].swapaxes(2, 3)}
    x = inputs("torchfidelity_tf1", [0])
    assert error("torchfidelity_tf1", x, convert(swapped), tap="pool768", numbers=[0]) > 1e-3
    half_pixels = inputs("pytorchfid_halfpixel", [0])
    assert error("torchfidelity_tf1", half_pixels, convert(tensors()), numbers=[0]) > 1e-3


# ---- Without the published features ----------------------------------------------------------------------------------


@cache
def shapes():
    """What the network has, and gives for three images; nothing is computed."""
    x = jnp.zeros((3, SIDE, SIDE, 3))
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), x)
    return variables, jax.eval_shape(InceptionV3().apply, variables, x)


def test_it_has_as_many_numbers_as_the_published_network():
    variables, taps = shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 23_850_960
    units = [
        path for path, _ in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]) if path[-1].key == "mean"
    ]
    assert len(units) == 94
    assert {name: tap.shape for name, tap in taps._asdict().items()} == {
        "pool64": (3, 64),
        "pool192": (3, 192),
        "pool768": (3, 768),
        "pool2048": (3, 2048),
        "spatial": (3, 17 * 17 * 7),
        "logits_unbiased": (3, 1008),
        "logits": (3, 1008),
    }


def test_every_convolution_is_at_the_highest_precision():
    jaxpr = str(jax.make_jaxpr(InceptionV3().apply)(shapes()[0], jnp.zeros((1, SIDE, SIDE, 3))))
    # Each names a precision for either side; there are 94 convolutions, and the classes.
    assert len(re.findall("conv_general_dilated|dot_general", jaxpr)) == 95
    assert len(re.findall(r"precision=\(?(?:Precision\.)?HIGHEST", jaxpr)) == 95


@pytest.mark.parametrize("shape", [(1, 300, 299, 3), (1, SIDE, SIDE, 2)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match="takes 299x299 images of 3 channels"):
        jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros(shape))
