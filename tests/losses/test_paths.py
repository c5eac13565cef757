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


TABLE = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
"""Stable Diffusion's alpha bar, from its definition."""


@pytest.mark.usefixtures("float64")
def test_scaled_linear_beta_is_the_table_at_integers():
    path, i = paths.scaled_linear_beta(), np.arange(1000)
    t = jnp.asarray(i, float)
    np.testing.assert_allclose(path.alpha(t) ** 2, TABLE, rtol=1e-12)
    np.testing.assert_allclose(path.sigma(t) ** 2, 1 - TABLE, rtol=1e-12)
    golden = {
        0: 0.99914998, 19: 0.98224396, 39: 0.96289492, 239: 0.69175035, 249: 0.67543209, 259: 0.65897524,
        499: 0.27766943, 739: 0.06131751, 749: 0.05662345, 759: 0.05221289, 999: 0.00466010,
    }  # fmt: skip
    # The authors multiply up in float32, whose errors grow to 1.4e-6.
    np.testing.assert_allclose(path.alpha(t)[np.asarray(list(golden))] ** 2, list(golden.values()), rtol=3e-6)


@pytest.mark.usefixtures("float64")
def test_scaled_linear_beta_is_not_clean_at_zero():
    np.testing.assert_allclose(paths.scaled_linear_beta().sigma(jnp.zeros(1)), 0.00085**0.5, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_scaled_linear_beta_between_integers():
    """Variance preserving, noisier with every fraction of a step, and beta constant from one integer to the next."""
    path = paths.scaled_linear_beta()
    t = jnp.linspace(0, 999, 3997)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-14)
    assert (jnp.diff(path.sigma(t)) > 0).all()
    rate = jax.vmap(jax.grad(lambda t: -2 * jnp.log(path.alpha(t))))
    i = np.asarray([0, 1, 500, 998])
    exact = -np.log(TABLE[i + 1] / TABLE[i])
    for fraction in (0.0, 0.25, 0.75):
        np.testing.assert_allclose(rate(jnp.asarray(i + fraction)), exact, rtol=1e-9)
    c = paths.coefficients(path, jnp.asarray([0.0, 999.0]), jnp.ones((2, 1)))
    assert all(jnp.isfinite(v).all() for v in c)
    assert (c.alpha_rate < 0).all()
    assert (c.sigma_rate > 0).all()


def test_scaled_linear_beta_in_float32():
    path, t = paths.scaled_linear_beta(), jnp.asarray([0.0, 1.0, 499.0, 999.0])
    for got, exact in ((path.alpha(t), TABLE), (path.sigma(t), 1 - TABLE)):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, np.sqrt(exact[[0, 1, 499, 999]]), rtol=1e-6)


@pytest.mark.parametrize(
    "numbers", [(1, 0.1, 0.2), (10, 0.0, 0.2), (10, 0.3, 0.2), (10, 0.1, 1.0), (10, 0.1, math.nan)]
)
def test_scaled_linear_beta_rejects(numbers):
    with pytest.raises(ValueError, match=f"first <= last < 1, got steps={numbers[0]}, first={numbers[1]}"):
        paths.scaled_linear_beta(*numbers)
