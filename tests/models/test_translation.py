"""Whatever a network predicts, the F that a student's preconditioning takes makes the same denoiser of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, edm, scaled, trig
from models import preconditioning, translation
from models.net import expand

SIGMA_DATA = 0.5
X, SIGMA = jax.random.normal(jax.random.key(0), (5, 3)), jnp.array([0.002, 0.1, 0.5, 3.0, 80.0])
ANGLE = jnp.arctan(SIGMA / SIGMA_DATA)


def F(x, t):
    """A network that sees the noise level, smooth and of no special form."""
    return jnp.sin(x * (1 + expand(t, x))) + 0.3 * expand(jnp.cos(t), x)


def on_angles(D):
    """A denoiser of x + sigma z as one of cos(t) x + sin(t) sigma_data z."""
    return conversions.edm_on_path(D, scaled(trig, SIGMA_DATA))


@pytest.mark.usefixtures("float64")
def test_an_edm_network_is_one_of_trigflow_and_back():
    there = translation.trigflow_of_edm(F, SIGMA_DATA)
    D = preconditioning.edm(F, SIGMA_DATA)
    x = jnp.cos(ANGLE)[:, None] * X.astype(jnp.float64)
    found = preconditioning.trigflow(there, SIGMA_DATA)(x, ANGLE.astype(jnp.float64))
    np.testing.assert_allclose(found, on_angles(D)(x, ANGLE.astype(jnp.float64)), rtol=1e-12)
    back = translation.edm_of_trigflow(there, SIGMA_DATA)
    c_noise = jnp.log(SIGMA.astype(jnp.float64)) / 4
    np.testing.assert_allclose(back(x, c_noise), F(x, c_noise), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_trigflow_network_is_one_of_edm():
    x, sigma = X.astype(jnp.float64), SIGMA.astype(jnp.float64)
    D = conversions.trigflow_on_path(preconditioning.trigflow(F, SIGMA_DATA), edm, sigma_data=SIGMA_DATA)
    found = preconditioning.edm(translation.edm_of_trigflow(F, SIGMA_DATA), SIGMA_DATA)
    np.testing.assert_allclose(found(x, sigma), D(x, sigma), rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "D",
    [
        preconditioning.vp(F),
        preconditioning.ve(F),
        preconditioning.discrete(F, np.geomspace(0.01, 100, 50)),
        preconditioning.discrete(F, np.geomspace(0.01, 100, 50), preconditioning.between),
    ],
    ids=["vp", "ve", "nearest", "between"],
)
def test_every_denoiser_is_one_of_edm_and_of_trigflow(D):
    x, sigma = X.astype(jnp.float64), SIGMA.astype(jnp.float64)
    as_edm = translation.edm_of_denoiser(D, SIGMA_DATA)
    np.testing.assert_allclose(preconditioning.edm(as_edm, SIGMA_DATA)(x, sigma), D(x, sigma), rtol=1e-9)
    t = jnp.arctan(sigma / SIGMA_DATA)
    x_t = jnp.cos(t)[:, None] * x
    found = preconditioning.trigflow(translation.trigflow_of_edm(as_edm, SIGMA_DATA), SIGMA_DATA)(x_t, t)
    np.testing.assert_allclose(found, on_angles(D)(x_t, t), rtol=1e-9)


def test_gaussian_data_have_a_linear_network_in_every_form():
    """D = c^2 x / (c^2 + sigma^2) at c = sigma_data: EDM's F and TrigFlow's are 0."""
    D = lambda x, sigma: x * SIGMA_DATA**2 / expand(SIGMA_DATA**2 + sigma**2, x)
    as_edm = translation.edm_of_denoiser(D, SIGMA_DATA)
    np.testing.assert_allclose(as_edm(X, jnp.log(SIGMA) / 4), jnp.zeros_like(X), atol=2e-4)
    np.testing.assert_allclose(translation.trigflow_of_edm(as_edm, SIGMA_DATA)(X, ANGLE), jnp.zeros_like(X), atol=2e-4)


@pytest.mark.usefixtures("float64")
def test_between_levels_there_is_a_derivative_and_at_them_the_step():
    levels = np.geomspace(0.01, 100, 50)
    t = jnp.asarray(levels[[0, 7, 49]])
    np.testing.assert_allclose(preconditioning.between(t, levels), [0, 7, 49], atol=1e-10)
    np.testing.assert_allclose(preconditioning.nearest(t, levels), [0, 7, 49])
    # Even steps in ln t: the derivative is 1 / (t spacing).
    t = jnp.array([0.05, 0.5, 20.0])
    _, slope = jax.jvp(lambda t: preconditioning.between(t, levels), (t,), (jnp.ones(3),))
    np.testing.assert_allclose(slope, 49 / np.log(1e4) / t, rtol=1e-9)
    _, none = jax.jvp(lambda t: preconditioning.nearest(t, levels), (t,), (jnp.ones(3),))
    np.testing.assert_array_equal(none, jnp.zeros(3))
    # Outside they stay at the last.
    np.testing.assert_allclose(preconditioning.between(jnp.array([0.0, 1e-4, 1e4]), levels), [0, 0, 49])


@pytest.mark.usefixtures("float64")
def test_the_tangent_of_an_edm_network_is_finite_where_continuous_training_looks():
    """sin t cos t dF/dt of F(x, ln(sigma_data tan t) / 4) is dF/dc_noise / 4, whatever t."""
    t = jnp.array([1e-6, 1e-3, 0.5, 1.5, np.pi / 2 - 1e-6])
    there = translation.trigflow_of_edm(F, SIGMA_DATA)
    x = X.astype(jnp.float64)
    _, tangent = jax.jvp(lambda t: there(x, t), (t,), (jnp.sin(t) * jnp.cos(t),))
    c_noise = jnp.log(SIGMA_DATA * jnp.tan(t)) / 4
    _, expected = jax.jvp(lambda c: F(x, c), (c_noise,), (jnp.full(5, -0.25),))
    np.testing.assert_allclose(tangent, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "form", [translation.edm_of_denoiser, translation.trigflow_of_edm, translation.edm_of_trigflow]
)
def test_sigma_data_is_positive(form):
    with pytest.raises(ValueError, match="sigma_data must be positive"):
        form(F, 0.0)
