import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths, weights
from tests.oracles import PATHS


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_weight_is_one_over_c_out_squared(sigma_data):
    t = jnp.geomspace(0.002, 80, 9)
    c_out = t * sigma_data / jnp.sqrt(t**2 + sigma_data**2)
    np.testing.assert_allclose(weights.edm_weight(t, sigma_data=sigma_data) * c_out**2, 1, rtol=1e-13)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_snr_weight_turns_a_data_loss_into_a_noise_loss(name):
    path, low, high = PATHS[name]
    t = jnp.linspace(low, high, 7)
    x, x_hat, z = jnp.asarray([0.4]), jnp.asarray([-0.1]), jnp.asarray([1.3])
    alpha, sigma = path.alpha(t), path.sigma(t)
    z_hat = (alpha * x + sigma * z - alpha * x_hat) / sigma
    np.testing.assert_allclose(weights.snr_weight(t, path=path) * (x - x_hat) ** 2, (z - z_hat) ** 2, rtol=1e-10)


def test_one():
    np.testing.assert_array_equal(weights.one(jnp.asarray([0.0, 3.0])), 1)


def test_velocity_loss_on_a_variance_preserving_path_is_snr_plus_one():
    """|v - v_hat|^2 = (1 + snr) |x - x_hat|^2 where alpha^2 + sigma^2 = 1 and t is the angle."""
    t = jnp.asarray([0.3, 0.9])
    np.testing.assert_allclose(weights.snr_weight(t, path=paths.trig) + 1, 1 / jnp.sin(t) ** 2, rtol=1e-6)
