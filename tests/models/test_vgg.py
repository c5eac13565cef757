import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.vgg import STAGES, average_pool, enlarge, lpips_features, max_pool, read_lpips

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "lpips.npz"


def draws(name, shape):
    """Random numbers that depend on a name, as the file of published distances makes its weights."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"visible/{name}".encode())))
    return generator.standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def arrays():
    """Random weights under the names and in the shapes of torchvision, and the weights of the layers."""
    weights = {}
    for number, channels, new_channels in (layer for stage in STAGES for layer in stage):
        name = f"features.{number}"
        kernel = draws(f"{name}.weight", (new_channels, channels, 3, 3))
        weights[f"{name}.weight"] = kernel * np.float32(np.sqrt(2 / (9 * channels)))
        weights[f"{name}.bias"] = draws(f"{name}.bias", (new_channels,)) * np.float32(0.1)
    for i, stage in enumerate(STAGES):
        channels = stage[-1][-1]
        weights[f"lin{i}"] = np.abs(draws(f"vgg.lin{i}.model.1.weight", (1, channels, 1, 1))).reshape(-1)
        weights[f"lin{i}"] /= np.float32(channels)
    return weights


@pytest.fixture(scope="module")
def lpips(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "lpips.npz"
    np.savez(path, **arrays)
    return read_lpips(path)


def compiled(pool=max_pool):
    """The features with their parameters as an argument; as constants they keep the compiler busy."""
    return jax.jit(lambda params, images: lpips_features(params, pool)(images))


def distances(maps, weights):
    """Zhang et al. 2018, equation 1, layer by layer for a batch of two, the last steps in float64."""
    layers = []
    for h, w in zip(maps, weights, strict=True):
        h = np.asarray(h, np.float64)
        unit = h / (np.sqrt((h**2).sum(-1, keepdims=True)) + 1e-10)
        layers.append(((unit[0] - unit[1]) ** 2 @ np.asarray(w, np.float64)).mean())
    return layers


@pytest.mark.skipif(not FIXTURE.is_file(), reason="the published distances are not here")
def test_distances_of_the_published_implementation(lpips, arrays):
    params, weights = lpips
    with np.load(FIXTURE) as file:
        published = dict(file)
    names, sums = published["vgg_trunk_names"], published["vgg_trunk_sums"]
    np.testing.assert_allclose([arrays[name].sum(dtype=np.float64) for name in names], sums, rtol=1e-6, atol=1e-6)

    features = compiled()
    pairs = [np.stack([published[f"{pair}_a"], published[f"{pair}_b"]]) for pair in published["pair_order"]]
    found = [distances(features(params, jnp.asarray(pair / 127.5 - 1, jnp.float32)), weights) for pair in pairs]
    np.testing.assert_allclose(found, published["vgg_rule_per_layer_f64"], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(np.sum(found, 1), published["vgg_rule_distance_f64"], rtol=1e-5, atol=1e-10)


def test_maps_halve_and_gray_is_repeated(lpips):
    params, _ = lpips
    gray = jax.random.uniform(jax.random.key(0), (2, 35, 18, 1), minval=-1)
    maps = compiled()(params, gray)
    assert [a.shape for a in maps] == [(2, 35 >> i, 18 >> i, stage[-1][-1]) for i, stage in enumerate(STAGES)]
    for one, three in zip(maps, compiled()(params, jnp.tile(gray, 3)), strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pool", "reduce"), [(max_pool, np.max), (average_pool, np.mean)])
def test_pooling_is_the_one_that_was_passed(lpips, pool, reduce):
    params, _ = lpips
    first, second = compiled(pool)(params[:2], jax.random.normal(jax.random.key(0), (1, 16, 16, 3)))
    pooled = reduce(np.asarray(first).reshape(1, 8, 2, 8, 2, 64), axis=(2, 4))
    h = jnp.asarray(pooled)
    for layer in params[1]:
        dimensions = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(h, layer.kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dimensions)
        h = jax.nn.relu(h + layer.bias)
    np.testing.assert_allclose(second, h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 32, 32, 4), "3 channels, or 1"), ((1, 32, 15, 3), "sides of 16 or more, got 32x15")]
)
def test_impossible_images_are_refused(lpips, shape, message):
    with pytest.raises(ValueError, match=message):
        lpips_features(lpips[0])(jnp.zeros(shape))


def test_enlarging_interpolates_between_pixel_centres():
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 3))
    large = enlarge(x, side=21)
    # Every third pixel lies on an old centre; those between are a third of the way to the next one.
    np.testing.assert_allclose(large[:, 1::3, 1::3], x, atol=1e-5)
    np.testing.assert_allclose(large[:, 2:-1:3, 1::3], (2 * x[:, :-1] + x[:, 1:]) / 3, atol=1e-5)
    # Beyond the outermost centres the border goes on.
    np.testing.assert_allclose(large[:, 0, 1::3], x[:, 0], atol=1e-5)


def test_only_small_images_are_enlarged():
    assert enlarge(jnp.zeros((2, 32, 32, 1))).shape == (2, 224, 224, 1)
    assert enlarge(jnp.zeros((1, 255, 300, 3))).shape == (1, 224, 224, 3)
    x = jnp.zeros((1, 256, 256, 1))
    assert enlarge(x) is x


def test_every_fault_of_a_file_is_listed(arrays, tmp_path):
    wrong = {name: array for name, array in arrays.items() if name != "features.5.bias"}
    wrong["features.0.weight"] = arrays["features.0.weight"].transpose(2, 3, 1, 0)
    wrong["features.2.bias"] = np.full(64, np.nan, np.float32)
    wrong["lin1"] = -arrays["lin1"]
    np.savez(tmp_path / "wrong.npz", **wrong)
    with pytest.raises(ValueError, match=r"wrong\.npz: not the trunk") as error:
        read_lpips(tmp_path / "wrong.npz")
    assert str(error.value).split("\n")[1:] == [
        "features.0.weight has shape (3, 3, 3, 64), expected (64, 3, 3, 3)",
        "features.2.bias holds something else than finite floating-point numbers (float32)",
        "features.5.bias is missing",
        "lin1 holds negative weights",
    ]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ValueError, match=r"text\.npz: not a readable npz file"):
        read_lpips(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        read_lpips(tmp_path / "none.npz")
