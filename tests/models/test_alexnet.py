import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.alexnet import lpips_features
from tests.drawn import lpips_alexnet


@pytest.fixture(scope="module")
def params():
    """Random weights."""
    return lpips_alexnet()[0]


def test_maps_shrink_and_gray_is_repeated(params):
    gray = jax.random.uniform(jax.random.key(0), (2, 64, 47, 1), minval=-1)
    compiled = jax.jit(lambda params, images: lpips_features(params)(images))
    maps = compiled(params, gray)
    # (64 + 4 - 11) // 4 + 1 = 15, then (15 - 3) // 2 + 1 = 7, then 3.
    assert [a.shape[1:3] for a in maps] == [(15, 11), (7, 5), (3, 2), (3, 2), (3, 2)]
    assert [a.shape[3] for a in maps] == [64, 192, 384, 256, 256]
    for one, three in zip(maps, compiled(params, jnp.tile(gray, 3)), strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 32, 32, 4), "3 channels, or 1"), ((1, 32, 30, 3), "sides of 31 or more, got 32x30")]
)
def test_impossible_images_are_refused(params, shape, message):
    with pytest.raises(ValueError, match=message):
        lpips_features(params)(jnp.zeros(shape))


def test_the_smallest_image_has_features(params):
    shapes = jax.eval_shape(lpips_features(params), jnp.zeros((1, 31, 31, 3)))
    assert [a.shape[1:3] for a in shapes] == [(7, 7), (3, 3), (1, 1), (1, 1), (1, 1)]
