import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import inverse_power, paths, weights
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


def test_one_and_zero():
    np.testing.assert_array_equal(weights.one(jnp.asarray([0.0, 3.0])), 1)
    np.testing.assert_array_equal(weights.zero(jnp.asarray([0.0, 3.0])), 0)


def test_adaptive_weight_finds_the_inverse_of_the_mean_square():
    """Its minimum over w is at w = -ln(loss/d), where exp(w) loss/d is 1; at w = 0 it is the mean square."""
    loss, d = jnp.asarray([0.06, 3.0, 600.0]), 12
    np.testing.assert_allclose(weights.adaptive(loss, jnp.zeros(3), elements=d), loss / d, rtol=1e-6)
    best = -jnp.log(loss / d)
    at_best = weights.adaptive(loss, best, elements=d)
    np.testing.assert_allclose(at_best, 1 - best, rtol=1e-6)
    gradient = jax.grad(lambda w: weights.adaptive(loss, w, elements=d).sum())
    np.testing.assert_allclose(gradient(best), 0, atol=1e-6)
    for other in (best - 0.5, best + 0.5):
        assert (weights.adaptive(loss, other, elements=d) > at_best + 0.1).all()


def test_adaptive_weight_is_edm2s_up_to_the_number_of_elements():
    """EDM2: sum over elements of loss_i / exp(u) + u, with u = -w."""
    squares, u = jnp.asarray([[0.1, 0.4, 0.3]]), jnp.asarray([0.7])
    edm2 = jnp.sum(squares / jnp.exp(u[:, None]) + u[:, None], axis=1)
    np.testing.assert_allclose(3 * weights.adaptive(squares.sum(axis=1), -u, elements=3), edm2, rtol=1e-6)


def test_velocity_loss_on_a_variance_preserving_path_is_snr_plus_one():
    """|v - v_hat|^2 = (1 + snr) |x - x_hat|^2 where alpha^2 + sigma^2 = 1 and t is the angle."""
    t = jnp.asarray([0.3, 0.9])
    np.testing.assert_allclose(weights.v_weight(t, path=paths.trig), 1 / jnp.sin(t) ** 2, rtol=1e-6)
    x, x_hat, z = jnp.asarray([0.4, -1.0]), jnp.asarray([-0.1, 0.3]), jnp.asarray([1.3, 0.2])
    z_hat = (jnp.cos(t) * (x - x_hat) + jnp.sin(t) * z) / jnp.sin(t)
    v, v_hat = (jnp.cos(t) * noise - jnp.sin(t) * data for noise, data in ((z, x), (z_hat, x_hat)))
    np.testing.assert_allclose(weights.v_weight(t, path=paths.trig) * (x - x_hat) ** 2, (v - v_hat) ** 2, rtol=1e-5)


def test_v_weight_is_finite_at_pure_noise():
    np.testing.assert_allclose(weights.v_weight(jnp.ones(1), path=paths.cosine), 1, rtol=1e-6)
    np.testing.assert_array_equal(weights.v_weight(jnp.ones(1), path=paths.linear), 1)


@pytest.mark.parametrize("p", [0.0, 0.75, 1.0])
def test_inverse_power_weighs_and_its_weight_is_a_constant(p):
    error = jnp.asarray([0.0, 0.02, 1200.0])
    np.testing.assert_allclose(inverse_power(error, p=p, c=1e-3), error / (error + 1e-3) ** p, rtol=1e-6)
    gradient = jax.grad(lambda e: inverse_power(e, p=p, c=1e-3).sum())(error)
    np.testing.assert_allclose(gradient, (error + 1e-3) ** -p, rtol=1e-6)
    if p == 0.75:  # where the reported loss stands in MeanFlow's runs on CIFAR-10, with errors near 1200
        np.testing.assert_allclose(inverse_power(error, p=p, c=1e-3)[2], 1200**0.25, rtol=1e-5)


def test_inverse_power_needs_a_constant():
    with pytest.raises(ValueError, match="needs c > 0, got 0"):
        inverse_power(jnp.ones(2), p=1.0, c=0.0)
