import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pixel_norm import pixel_norm


@pytest.mark.parametrize("axis", [-1, 1])
def test_mean_square_is_one_along_the_axis(axis):
    a = 3.0 * jax.random.normal(jax.random.key(0), (2, 4, 6)) + 1.0
    out = pixel_norm(a, axis)
    np.testing.assert_allclose(jnp.mean(out**2, axis), 1.0, rtol=1e-5)
    np.testing.assert_allclose(out / a, jnp.broadcast_to(jnp.max(out / a, axis, keepdims=True), a.shape), rtol=1e-5)


def test_half_precision_goes_in_and_float32_comes_out():
    a = jax.random.normal(jax.random.key(0), (64, 256)).astype(jnp.bfloat16)
    out = pixel_norm(a)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(jnp.mean(out**2, -1), 1.0, rtol=1e-5)


def test_zero_stays_zero_with_a_derivative_in_both_modes():
    zero, direction = jnp.zeros(4), jnp.array([1.0, -2.0, 0.5, 3.0])
    value, tangent = jax.jvp(pixel_norm, (zero,), (direction,))
    np.testing.assert_array_equal(value, zero)
    np.testing.assert_allclose(tangent, 1e4 * direction, rtol=1e-5)
    np.testing.assert_allclose(jax.vjp(pixel_norm, zero)[1](direction)[0], 1e4 * direction, rtol=1e-5)
