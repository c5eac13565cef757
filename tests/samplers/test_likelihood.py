from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from losses import conversions
from samplers import bits_per_dimension, grids, likelihood, log_likelihood, sample_keys
from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_denoiser,
    gaussian_flow_map,
    gaussian_velocity,
    mixture_cdf,
    mixture_flow_map,
    mixture_velocity,
)

EDM = PATHS["edm"].path
KEYS = sample_keys(0, np.arange(5))
X = jax.random.normal(jax.random.key(1), (5, 3, 2))


def karras(n):
    """Times from 80 on, and the end 0.002."""
    *times, end = grids.karras(n + 1)
    return times, float(end)


def order(got, exact):
    """The power of the step size that the largest errors fall with, as the steps double."""
    errors = [np.abs(g - exact).max() for g in got]
    return np.log2(np.divide(errors[:-1], errors[1:]))


@pytest.mark.usefixtures("float64")
def test_bits_of_a_gaussian():
    """CTM's code reports 0.29 bits too little, in its reading of N(0, 0.25)."""
    data, (times, end) = Gaussian(0.0, 0.5), karras(200)
    net = conversions.denoiser_to_velocity(EDM, partial(gaussian_denoiser, data, EDM))
    x = 0.5 * X.astype(float)
    got = log_likelihood(net, x, times, KEYS, path=EDM, end=end)
    np.testing.assert_allclose(got, norm.logpdf(x, scale=np.hypot(0.5, end)).sum((1, 2)), atol=0.01)
    exact = 7 - norm.logpdf(x, scale=0.5).mean((1, 2)) / np.log(2)
    np.testing.assert_allclose(bits_per_dimension(got, elements=6), exact, atol=3e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "trigflow"])
def test_second_order_on_every_path(name):
    """On a linear flow all is known, even what is neglected of the data at the start."""
    path, low, high = PATHS[name]
    data, x = Gaussian(0.0, 0.7), X.astype(float)
    start, end = (3.0, 0.5) if name == "edm" else (0.9 * high, max(low, 0.1))
    x_start = gaussian_flow_map(data, path, x, end, start)
    exact = norm.logpdf(x_start, scale=path.sigma(jnp.asarray(start))) + jnp.log(x_start / x)
    got = []
    for n in (64, 128, 256):
        times = np.linspace(start, end, n + 1)[:-1]
        got.append(log_likelihood(partial(gaussian_velocity, data, path), x, times, KEYS, path=path, end=end))
    np.testing.assert_allclose(order(got, exact.sum((1, 2))), 2, atol=0.1)


@pytest.mark.usefixtures("float64")
def test_density_of_a_mixture():
    """The flow is not linear: a density is the derivative of the distribution function, which the flow keeps."""
    x, end = jnp.linspace(-1.5, 1.5, 5)[:, None], 0.1
    x_start = mixture_flow_map(Mixture(), EDM, x, end, 80.0)

    def log_density(x, t):
        return jnp.log(jax.vmap(jax.grad(lambda x: mixture_cdf(Mixture(), EDM, x[None], t).sum()))(x))

    exact = log_density(x, end)
    as_if_noise_were_all = exact - log_density(x_start, 80.0) + norm.logpdf(x_start, scale=80.0)
    np.testing.assert_allclose(as_if_noise_were_all, exact, atol=0.01)
    got = []
    for n in (100, 200, 400):
        times = grids.karras(n + 1, sigma_min=end)[:-1]
        got.append(log_likelihood(partial(mixture_velocity, Mixture(), EDM), x, times, KEYS, path=EDM, end=end))
    np.testing.assert_allclose(order(got, as_if_noise_were_all[:, 0]), 2, atol=0.2)


@pytest.mark.usefixtures("float64")
def test_the_estimate_of_a_divergence_is_unbiased():
    """A linear flow x' = A x has the divergence trace(A) and mixes elements, so single estimates differ."""
    a = jnp.asarray([[0.3, 0.5], [-0.1, 0.2]])
    keys = sample_keys(3, np.arange(4000))
    x = jnp.zeros((4000, 2))
    got = log_likelihood(lambda x, t: x @ a.T, x, [1.0, 0.6], keys, path=EDM, end=0.2)
    at_zero = 2 * norm.logpdf(0.0)
    np.testing.assert_allclose(got.mean() - at_zero, 0.8 * jnp.trace(a), atol=0.02)
    np.testing.assert_allclose(np.unique(np.round(got - at_zero, 9)), [0.8 * 0.1, 0.8 * 0.9], rtol=1e-6)


def test_bits_of_a_uniform_density_are_all_eight():
    np.testing.assert_allclose(bits_per_dimension(12 * jnp.log(jnp.full(2, 0.5)), elements=12), 8.0, rtol=1e-6)
    np.testing.assert_allclose(bits_per_dimension(jnp.zeros(1), elements=5, levels=2), 0.0, atol=1e-7)


@pytest.mark.usefixtures("float64")
def test_a_velocity_that_is_finite_at_data_is_evaluated_there():
    """The straight path from t = 0 to pure noise neglects nothing: N(0.7, 0.25) at 0.2, 0.7 and 1.5."""
    linear, x = PATHS["linear"].path, jnp.asarray([[0.2], [0.7], [1.5]])
    net = partial(gaussian_velocity, Gaussian(0.7, 0.5), linear)
    got = []
    for n in (50, 100, 200):
        got.append(log_likelihood(net, x, grids.linear(n), sample_keys(0, np.arange(3)), path=linear, end=0.0))
    np.testing.assert_allclose(got[-1], [-0.7258, -0.2258, -1.5058], atol=2e-4)
    np.testing.assert_allclose(order(got, norm.logpdf(x[:, 0], 0.7, 0.5)), 2, atol=0.1)


@pytest.mark.usefixtures("float64")
def test_the_exact_divergence_is_what_estimates_average_to():
    """Where the flow mixes elements one estimate is off; without keys there is nothing to estimate."""
    a = jax.random.normal(jax.random.key(0), (4, 4))

    def net(x, t):
        return (jnp.sin(x.reshape(len(x), 4)) @ a.T + t[:, None]).reshape(x.shape)

    x, t = jax.random.normal(jax.random.key(1), (3, 2, 2)), jnp.full(3, 0.5)
    v, divergence = likelihood.exact(net)(x, t)
    np.testing.assert_array_equal(v, net(x, t))
    np.testing.assert_allclose(divergence, jnp.cos(x.reshape(3, 4)) @ jnp.diag(a), rtol=1e-12)
    many = jnp.tile(x, (400, 1, 1))
    _, estimates = likelihood.hutchinson(net, sample_keys(0, np.arange(1200)), many)(many, jnp.full(1200, 0.5))
    estimates = estimates.reshape(400, 3)
    assert estimates.std(axis=0).min() > 0.1
    np.testing.assert_array_less(abs(estimates.mean(axis=0) - divergence), 4 * estimates.std(axis=0) / 20)


@pytest.mark.usefixtures("float64")
def test_steps_without_keys_take_the_exact_divergence():
    a, x = jnp.asarray([[0.3, 0.5], [-0.1, 0.2]]), jnp.zeros((2, 2))
    got = log_likelihood(lambda x, t: x @ a.T, x, [1.0, 0.6], None, path=EDM, end=0.2)
    np.testing.assert_allclose(got - 2 * norm.logpdf(0.0), 0.8 * jnp.trace(a), rtol=1e-12)


def test_an_end_below_data_is_refused():
    with pytest.raises(ValueError, match=r"above the end -0\.1 >= 0"):
        log_likelihood(lambda x, t: x, X, [1.0], KEYS, path=EDM, end=-0.1)
