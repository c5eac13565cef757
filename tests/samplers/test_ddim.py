from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import ddim, euler, grids
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_flow_map, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_each_step_shrinks_by_the_cosine_of_its_angle(name):
    """One step on Gaussian data is the exact flow times cos(theta_t - theta_s), theta = arctan(sigma / (alpha s))."""
    path, low, high = PATHS[name]
    data = Gaussian(0.0, 0.7)
    times = [0.95 * high, 0.6 * high, 0.2 * high]
    angles = [float(jnp.arctan2(path.sigma(t), path.alpha(t) * data.std)) for t in map(jnp.asarray, [*times, low])]
    got = ddim(partial(gaussian_denoiser, data, path), jnp.asarray(X), times, path=path, end=low)
    exact = gaussian_flow_map(data, path, jnp.asarray(X), times[0], low)
    np.testing.assert_allclose(got, exact * np.prod(np.cos(np.diff(angles))), rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("n", "factor"), [(11, 0.7528), (18, 0.8461), (41, 0.9314), (151, 0.9812), (1281, 0.9978)])
def test_golden_product_on_the_karras_grid(n, factor):
    data, path, grid = Gaussian(0.0, 0.5), PATHS["edm"].path, grids.karras(n)
    got = ddim(partial(gaussian_denoiser, data, path), jnp.asarray(X), grid[:-1], path=path, end=grid[-1])
    exact = gaussian_flow_map(data, path, jnp.asarray(X), 80.0, 0.002)
    np.testing.assert_allclose(got[0] / exact[0], factor, atol=6e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_exact_in_one_step_on_point_data(name):
    """There data and noise stay what they were predicted to be, all the way."""
    path, low, high = PATHS[name]
    z = jnp.asarray(X)
    start = 0.9 * high
    x = path.alpha(jnp.asarray(start)) * 0.3 + path.sigma(jnp.asarray(start)) * z
    got = ddim(lambda x, t: jnp.full_like(x, 0.3), x, [start], path=path, end=low)
    expected = path.alpha(jnp.asarray(low)) * 0.3 + path.sigma(jnp.asarray(low)) * z
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(ddim(lambda x, t: jnp.full_like(x, 0.3), x, [start], path=path), 0.3, rtol=1e-13)


@pytest.mark.usefixtures("float64")
def test_is_euler_on_the_edm_path():
    data, path, grid = Gaussian(), PATHS["edm"].path, grids.karras(12)
    x = 80 * jnp.asarray(X)
    a = ddim(partial(gaussian_denoiser, data, path), x, grid, path=path)
    b = euler(partial(gaussian_velocity, data, path), x, grid)
    np.testing.assert_allclose(a, b, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_pure_noise_of_the_straight_path_is_a_valid_start():
    path = PATHS["linear"].path
    got = ddim(partial(gaussian_denoiser, Gaussian(), path), jnp.asarray(X), [1.0, 0.5], path=path)
    assert jnp.isfinite(got).all()


def test_state_keeps_its_dtype():
    path = PATHS["linear"].path
    x = jnp.ones((2, 3))
    assert ddim(lambda x, t: x.astype(jnp.bfloat16), x, [1.0, 0.5], path=path).dtype == jnp.float32
    with jax.enable_x64(True):
        assert ddim(lambda x, t: x, x, [1.0, 0.5], path=path).dtype == jnp.float32
