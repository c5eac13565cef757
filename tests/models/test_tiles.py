from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.autoencoder import Autoencoder
from models.tiles import tiled


@pytest.fixture
def x():
    """An image whose sides are no multiples of anything."""
    return jax.random.normal(jax.random.key(0), (2, 22, 18, 3))


@pytest.mark.parametrize("overlap", [0, 2, 4])
@pytest.mark.parametrize(
    "network",
    [
        lambda x: x,
        lambda x: x.repeat(2, axis=1).repeat(2, axis=2),
        lambda x: x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).mean(axis=(2, 4)),
    ],
    ids=["same", "larger", "smaller"],
)
def test_a_network_that_looks_at_no_neighbours_makes_the_same_of_tiles(x, network, overlap):
    np.testing.assert_allclose(tiled(network, x, tile=8, overlap=overlap), network(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_seam_is_a_straight_line_over_the_overlap(axis):
    number = count()
    x = jnp.zeros((1, 10, 3, 1) if axis == 1 else (1, 3, 10, 1))
    found = tiled(lambda part: jnp.full_like(part, next(number)), x, tile=6, overlap=3)
    # Tiles begin at 0, 3, 6 and 9, and the last one, of a single pixel, is all overlap.
    expected = np.array([0, 0, 0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    for line in np.moveaxis(np.asarray(found)[0, ..., 0], axis - 1, -1):
        np.testing.assert_allclose(line, expected, rtol=1e-6)


def test_an_image_no_larger_than_a_tile_is_not_cut(x):
    shapes = []

    def network(part):
        shapes.append(part.shape)
        return part

    tiled(network, x, tile=22, overlap=6)
    assert shapes == [x.shape]


def test_there_are_few_shapes_of_tiles(x):
    shapes = set()

    def network(part):
        shapes.add(part.shape[1:3])
        return part

    tiled(network, x, tile=8, overlap=2)
    assert shapes == {(8, 8), (8, 6), (4, 8), (4, 6)}


def test_seams_of_an_autoencoder_are_blended(randomized):
    module = Autoencoder(channels=4, multipliers=(1, 2), blocks=1, latent_channels=2, image_channels=1, groups=2)
    params = randomized(module, jnp.zeros((1, 8, 8, 1)))
    decode = jax.jit(partial(module.apply, params, method="decode"))
    z = jax.random.normal(jax.random.key(1), (1, 6, 24, 2))
    whole = decode(z)
    np.testing.assert_array_equal(tiled(decode, z, tile=24, overlap=6), whole)

    hard, soft = (np.asarray(tiled(decode, z, tile=12, overlap=overlap)) for overlap in (0, 6))
    assert soft.shape == whole.shape
    # Without an overlap the seam is between columns 23 and 24; with one, those are half of either tile.
    left, right = (np.asarray(decode(z[:, :, start : start + 12])) for start in (0, 6))
    np.testing.assert_allclose(hard[:, :, :24], left, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(soft[:, :, :12], left[:, :, :12], rtol=1e-4, atol=1e-5)
    weight = (np.arange(12) / 12)[None, None, :, None]
    blended = left[:, :, 12:] * (1 - weight) + right[:, :, :12] * weight
    np.testing.assert_allclose(soft[:, :, 12:24], blended, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (8, 8, "overlap=8 must be 0 or more and less than tile=8"),
        (8, -1, "overlap=-1 must be"),
        (8, 3, "times 1/2 must be whole numbers"),
    ],
)
def test_impossible_tiles_are_refused(x, tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        tiled(lambda part: part[:, ::2, ::2], x, tile=tile, overlap=overlap)
