import jax
import jax.numpy as jnp
import numpy as np

from data.augment import from_model_range, horizontal_flip, to_model_range


def test_every_grey_level_survives_both_ways():
    levels = jnp.arange(256, dtype=jnp.uint8)
    scaled = jax.jit(to_model_range)(levels)
    assert scaled.dtype == jnp.float32
    assert (scaled[0], scaled[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(jax.jit(from_model_range)(scaled), levels)


def test_from_model_range_rounds_and_clips():
    values = jnp.array([-7.0, -1.0, 0.0, 0.999, 1.0, jnp.inf, 1 / 127.5 * 0.4, 1 / 127.5 * 0.6])
    # 0 is 127.5, which rounds to the even 128; +0.4 and +0.6 grey levels give 127.9 and 128.1.
    np.testing.assert_array_equal(from_model_range(values), [0, 0, 128, 255, 255, 255, 128, 128])
    np.testing.assert_array_equal(from_model_range(jnp.array([-0.6, 0.6]) / 127.5), [127, 128])


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    image = jnp.arange(3 * 4 * 2, dtype=jnp.float32).reshape(1, 3, 4, 2).repeat(400, axis=0)
    flipped = jax.jit(horizontal_flip)(jax.random.key(0), image)
    mirrored = np.asarray((flipped == image[:, :, ::-1]).all((1, 2, 3)))
    untouched = np.asarray((flipped == image).all((1, 2, 3)))
    np.testing.assert_array_equal(mirrored, ~untouched)
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_flip_keeps_the_dtype_and_follows_its_key():
    image = jnp.arange(64 * 3, dtype=jnp.uint8).reshape(64, 1, 3, 1)
    one, again, other = (horizontal_flip(jax.random.key(seed), image) for seed in (0, 0, 1))
    assert one.dtype == jnp.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
