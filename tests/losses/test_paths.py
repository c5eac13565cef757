import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from tests.oracles import PATHS

ENDS = {
    "edm": (80.0, 1.0, 80.0),
    "linear": (1.0, 0.0, 1.0),
    "trig": (math.pi / 2, 0.0, 1.0),
    "cosine": (1.0, 0.0, 1.0),
    "linear_beta": (1.0, math.exp(-10.05 / 2), math.sqrt(1 - math.exp(-10.05))),
    "trigflow": (math.pi / 2, 0.0, 0.5),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_end_points(name):
    path = PATHS[name].path
    end, alpha, sigma = ENDS[name]
    t = jnp.asarray([0.0, end])
    np.testing.assert_allclose(path.alpha(t), [1, alpha], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(path.sigma(t), [0, sigma], rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_time_derivative_of_the_state(name):
    path, low, high = PATHS[name]
    t = jnp.linspace(low, high, 6)
    x, z = jax.random.normal(jax.random.key(0), (2, 6, 3, 2))
    h = 1e-5 * low
    slope = (paths.interpolate(path, x, z, t + h) - paths.interpolate(path, x, z, t - h)) / (2 * h)
    np.testing.assert_allclose(paths.velocity(path, x, z, t), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["trig", "cosine", "linear_beta"])
def test_variance_preserving(name):
    path, _, high = PATHS[name]
    t = jnp.linspace(0.0, high, 50)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-14)
    assert (jnp.diff(path.sigma(t)) > 0).all()


@pytest.mark.usefixtures("float64")
def test_linear_beta_integrates_beta():
    """-2 d ln(alpha)/dt = beta(t) = beta_min + t (beta_max - beta_min)."""
    path = paths.linear_beta(0.3, 7.0)
    t = jnp.linspace(0.01, 1, 9)
    rate = jax.vmap(jax.grad(lambda t: -2 * jnp.log(path.alpha(t))))(t)
    np.testing.assert_allclose(rate, 0.3 + t * 6.7, rtol=1e-12)


def test_linear_beta_keeps_small_noise_in_float32():
    """Sigma at t = 1e-6 is sqrt(1e-7): 1 - exp(-B) in float32 would be 8e-8 or 1.2e-7."""
    sigma = paths.linear_beta().sigma(jnp.asarray(1e-6))
    np.testing.assert_allclose(sigma, math.sqrt(-math.expm1(-1e-7 - 0.5e-12 * 19.9)), rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (-0.1, 20.0), (20.0, 0.1), (math.nan, 20.0)])
def test_linear_beta_rejects(low, high):
    with pytest.raises(ValueError, match=f"0 < beta_min <= beta_max, got beta_min={low}, beta_max={high}"):
        paths.linear_beta(low, high)


@pytest.mark.parametrize("sigma_data", [0.0, -0.5, math.nan])
def test_scaled_rejects(sigma_data):
    with pytest.raises(ValueError, match=f"must be positive, got {sigma_data}"):
        paths.scaled(paths.trig, sigma_data)


def test_times_multiply_examples_and_not_pixels():
    """B = H = W = C, where a missing reshape would broadcast in silence."""
    x, z = jnp.ones((3, 3, 3, 3)), jnp.zeros((3, 3, 3, 3))
    t = jnp.asarray([0.0, 0.25, 1.0])
    x_t = paths.interpolate(paths.linear, x, z, t)
    for row, value in enumerate([1.0, 0.75, 0.0]):
        np.testing.assert_array_equal(x_t[row], value)
    assert paths.coefficients(paths.linear, t, x).alpha.shape == (3, 1, 1, 1)


def test_half_precision_is_widened_and_double_kept():
    assert paths.at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    assert paths.at_least_float32(jnp.ones(2, jnp.float16)).dtype == jnp.float32
    x = jnp.ones((2, 3), jnp.bfloat16)
    c = paths.coefficients(paths.trig, jnp.asarray([0.1, 0.2], jnp.bfloat16), x)
    assert {v.dtype for v in c} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        assert paths.at_least_float32(jnp.ones(2, jnp.float64)).dtype == jnp.float64
