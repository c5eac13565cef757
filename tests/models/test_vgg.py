import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.vgg import average_pool, enlarge, lpips_features, max_pool
from tests.drawn import lpips_vgg


@pytest.fixture(scope="module")
def params():
    """Random weights."""
    return lpips_vgg()[0]


def compiled(pool=max_pool):
    """The features with their parameters as an argument; as constants they keep the compiler busy."""
    return jax.jit(lambda params, images: lpips_features(params, pool)(images))


def test_maps_halve_and_gray_is_repeated(params):
    gray = jax.random.uniform(jax.random.key(0), (2, 35, 18, 1), minval=-1)
    maps = compiled()(params, gray)
    assert [a.shape for a in maps] == [
        (2, 35 >> i, 18 >> i, channels) for i, channels in enumerate((64, 128, 256, 512, 512))
    ]
    for one, three in zip(maps, compiled()(params, jnp.tile(gray, 3)), strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pool", "reduce"), [(max_pool, np.max), (average_pool, np.mean)])
def test_pooling_is_the_one_that_was_passed(params, pool, reduce):
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
def test_impossible_images_are_refused(params, shape, message):
    with pytest.raises(ValueError, match=message):
        lpips_features(params)(jnp.zeros(shape))


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
