import jax
import jax.numpy as jnp
import numpy as np

from losses import tangents


def test_normalised_takes_the_norm_of_the_example():
    """A 3-4-5 triangle spread over pixels: norm 5, whatever the other example is."""
    g = jnp.zeros((2, 2, 1, 2)).at[0, 0, 0, 1].set(3.0).at[0, 1, 0, 0].set(-4.0).at[1].set(7.0)
    np.testing.assert_allclose(tangents.normalised(g, c=0.1)[0], g[0] / 5.1, rtol=1e-6)
    np.testing.assert_allclose(tangents.normalised(g, c=0.1)[1], 7 / (14 + 0.1), rtol=1e-6)


def test_normalised_keeps_the_direction_and_stays_below_one():
    direction = jax.random.normal(jax.random.key(0), (1, 12))
    direction = direction / jnp.linalg.norm(direction)
    for size in (1e-6, 1e-2, 1.0, 1e6):
        got = tangents.normalised(size * direction)
        np.testing.assert_allclose(got, size / (size + 0.1) * direction, rtol=1e-5)
    np.testing.assert_array_equal(tangents.normalised(jnp.zeros((2, 3))), 0)


def test_root_mean_square_is_another_c():
    """g / (rms + c), as a published re-implementation has it, is sqrt(d) times ours with c sqrt(d)."""
    g, root = jax.random.normal(jax.random.key(0), (3, 4, 4)), np.sqrt(16)
    rms = jnp.sqrt(jnp.mean(g**2, axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(root * tangents.normalised(g, c=0.1 * root), g / (rms + 0.1), rtol=1e-5)


def test_clipped_element_by_element():
    g = jnp.asarray([[-3.0, 0.2, 1.5], [0.0, -0.7, 1.0]])
    np.testing.assert_allclose(tangents.clipped(g), [[-1, 0.2, 1], [0, -0.7, 1]], rtol=1e-6)
    np.testing.assert_allclose(tangents.clipped(g, limit=0.5), [[-0.5, 0.2, 0.5], [0, -0.5, 0.5]], rtol=1e-6)
