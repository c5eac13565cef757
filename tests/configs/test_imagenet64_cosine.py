"""The v-prediction of ImageNet's UViT: its denoiser and its loss in closed form, at both ends of the path too."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glue, imagenet64_cosine
from losses import cosine, edm
from losses.couplings import independent
from tests.configs import made_up
from tests.configs.made_up import small
from train import Context

pytestmark = pytest.mark.usefixtures("small_data")
LABELS = jnp.arange(4)
X = jax.random.normal(jax.random.key(0), (4, *made_up.SHAPE))


@pytest.fixture
def run():
    config = small("imagenet64_cosine", bfloat16=False, dropout=0.0, batch_size=4)
    experiment = imagenet64_cosine.build(config)
    return config, experiment, made_up.params(experiment)


def test_the_denoiser_is_that_of_a_v_prediction_which_sees_1000_t(run):
    config, _, params = run
    t = jnp.array([0.0, 0.2, 0.7, 1.0])
    plain = imagenet64_cosine.network(config).clone(time_scale=1000.0)
    v = jax.jit(glue.bind(plain, params, LABELS))(X, t)
    denoised = jax.jit(imagenet64_cosine.on_path(config, cosine)(params, LABELS))(X, t)
    angle = (math.pi / 2 * np.asarray(t, np.float64))[:, None, None, None]
    # The fastest sinusoid's argument, 1000 t, is known to 6e-5 in float32; v changes by less than 0.1 per unit of it.
    np.testing.assert_allclose(denoised, np.cos(angle) * X - np.sin(angle) * v, atol=1e-5)
    np.testing.assert_array_equal(denoised[0], X[0])
    assert jnp.abs(v[3]).max() > 0.05


def test_the_denoiser_has_finite_derivatives_at_both_ends(run):
    config, _, params = run
    denoiser = imagenet64_cosine.on_path(config, cosine)(params, LABELS)
    t = jnp.array([0.0, 0.5, 0.5, 1.0])
    rates = jax.jit(lambda t: jax.jvp(lambda t: denoiser(X, t), (t,), (jnp.ones_like(t),))[1])(t)
    assert jnp.all(jnp.isfinite(rates))
    assert jnp.all(jnp.abs(rates).max((1, 2, 3)) > 0.05)


def test_it_is_one_denoiser_on_every_path(run):
    config, _, params = run
    sigma = jnp.array([0.01, 0.3, 2.0, 50.0])
    t = 2 / jnp.pi * jnp.arctan(sigma)
    alpha = cosine.alpha(t)[:, None, None, None]
    on_edm, on_cosine = (jax.jit(imagenet64_cosine.on_path(config, path)(params, LABELS)) for path in (edm, cosine))
    np.testing.assert_allclose(on_edm(X, sigma), on_cosine(alpha * X, t), atol=1e-5)


def test_the_loss_is_the_mean_square_of_the_error_of_v(run):
    config, experiment, params = run
    batch = {"image": 0.5 * X, "label": LABELS}
    key = jax.random.key(5)
    context = Context(step=jnp.zeros((), jnp.int32), frozen=None, averages={"ema": params})
    losses, metrics = jax.jit(experiment.objective)(params, batch, key, context)

    t = metrics["t"]
    key_loss = jax.random.split(key, 3)[0]
    x, z = independent(jax.random.split(key_loss)[1], batch["image"])
    alpha, sigma = (c(t)[:, None, None, None] for c in cosine)
    F = jax.jit(glue.bind(imagenet64_cosine.network(config), params, LABELS))
    error = F(alpha * x + sigma * z, math.pi / 2 * t) - (alpha * z - sigma * x)
    np.testing.assert_allclose(losses, jnp.mean(error**2, (1, 2, 3)), rtol=1e-3)


def test_times_are_those_between_the_two_log_snr(run):
    config, _, _ = run
    config.log_snr_max = 1.0
    experiment = imagenet64_cosine.build(config)
    batch = {"image": jnp.zeros((2000, *made_up.SHAPE)), "label": jnp.zeros(2000, int)}

    def t(params):
        context = Context(step=jnp.zeros((), jnp.int32), frozen=None, averages={})
        return experiment.objective(params, batch, jax.random.key(0), context)[1]["t"]

    log_snr = -2 * np.log(np.tan(np.pi / 2 * np.asarray(jax.jit(t)(made_up.params(experiment)), np.float64)))
    assert 0.99 < log_snr.max() <= 1.0
    assert -1.0 <= log_snr.min() < -0.99
