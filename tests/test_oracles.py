"""The oracles against definitions that share no formula with them: quadrature, a fine ODE solution, sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_consistency,
    gaussian_denoiser,
    gaussian_flow_map,
    gaussian_score,
    gaussian_velocity,
    mixture_cdf,
    mixture_consistency,
    mixture_denoiser,
    mixture_flow_map,
    mixture_velocity,
)

ONE_MODE = Mixture((1.0,), (0.3,), (0.7,))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def density(data: Mixture, x: np.ndarray) -> np.ndarray:
    terms = [w * np.exp(-(((x - m) / s) ** 2) / 2) / s for w, m, s in zip(*data, strict=True)]
    return np.sum(terms, axis=0)


@pytest.mark.parametrize("name", ["trigflow", "linear_beta"])
def test_denoiser_and_velocity_are_posterior_means(name):
    path, low, high = PATHS[name]
    grid = np.linspace(-3, 3, 20001)
    for t in np.quantile([low, high], [0.05, 0.5, 0.9]):
        alpha, sigma = float(path.alpha(jnp.asarray(t))), float(path.sigma(jnp.asarray(t)))
        step = 1e-6 * t
        rates = [(float(c(jnp.asarray(t + step))) - float(c(jnp.asarray(t - step)))) / (2 * step) for c in path]
        for x_t in (-0.7 * sigma, 0.2, 1.1 * sigma + alpha):
            z = (x_t - alpha * grid) / sigma
            posterior = density(Mixture(), grid) * np.exp(-(z**2) / 2)
            posterior /= posterior.sum()
            arguments = (Mixture(), path, jnp.asarray([x_t]), jnp.asarray([t]))
            np.testing.assert_allclose(mixture_denoiser(*arguments), posterior @ grid, rtol=1e-8, atol=1e-10)
            velocity = posterior @ (rates[0] * grid + rates[1] * z)
            np.testing.assert_allclose(mixture_velocity(*arguments), velocity, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["trigflow"])
def test_gaussian_is_a_mixture_of_one(name):
    path, low, high = PATHS[name]
    t = jnp.linspace(low, high, 5)
    x_t = jnp.linspace(-2, 3, 5)
    for gaussian, mixture in (
        (gaussian_denoiser, mixture_denoiser),
        (gaussian_velocity, mixture_velocity),
        (gaussian_consistency, mixture_consistency),
    ):
        np.testing.assert_allclose(
            gaussian(Gaussian(), path, x_t, t), mixture(ONE_MODE, path, x_t, t), rtol=1e-11, atol=1e-12
        )
    np.testing.assert_allclose(
        gaussian_score(Gaussian(), path, x_t, t),
        jax.vmap(jax.grad(lambda x, t: jnp.log(jax.grad(lambda y: mixture_cdf(ONE_MODE, path, y, t))(x))))(x_t, t),
        rtol=1e-8,
    )


@pytest.mark.parametrize("name", ["linear_beta"])
def test_flow_map_solves_its_ode(name):
    """ds X(x, t, s) = v(X, s), X(x, t, t) = x and X is constant along trajectories: derivatives are implicit ones."""
    path, _, high = PATHS[name]
    x_t = jnp.linspace(-1.5, 2.0, 7)
    t, s = jnp.full(7, 0.7 * high), jnp.full(7, 0.3 * high)
    for data, flow_map, velocity in (
        (Gaussian(), gaussian_flow_map, gaussian_velocity),
        (Mixture(), mixture_flow_map, mixture_velocity),
    ):
        x_s, rate = jax.jvp(lambda s: flow_map(data, path, x_t, t, s), (s,), (jnp.ones_like(s),))  # noqa: B023
        np.testing.assert_allclose(rate, velocity(data, path, x_s, s), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(flow_map(data, path, x_t, t, t), x_t, rtol=1e-12)
        v = velocity(data, path, x_t, t)
        _, drift = jax.jvp(lambda x, t: flow_map(data, path, x, t, s), (x_t, t), (v, jnp.ones_like(t)))  # noqa: B023
        np.testing.assert_allclose(drift, 0, atol=1e-10)


def test_cdf_is_that_of_noisy_samples_and_keeps_tails():
    generator = np.random.default_rng(0)
    n = 100_000
    mode = generator.choice(2, n, p=Mixture().weights)
    x = np.asarray(Mixture().means)[mode] + np.asarray(Mixture().stds)[mode] * generator.normal(size=n)
    x_t = x + 0.5 * generator.normal(size=n)
    edm = PATHS["edm"].path
    for point in (-1.0, 0.0, 0.8):
        p = float(mixture_cdf(Mixture(), edm, jnp.asarray(point), 0.5))
        assert abs((x_t < point).mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
    # 30 standard deviations out the wider component alone is left, on both sides.
    far = mixture_consistency(Mixture(), edm, jnp.asarray([-2400.0, 2400.0]), 80.0)
    np.testing.assert_allclose(far, [0.5 - 0.3 * 30, 0.5 + 0.3 * 30], rtol=0.02)


def test_flow_map_in_float32():
    with jax.enable_x64(False):
        x_t = jnp.linspace(-100, 100, 9)
        low = mixture_consistency(Mixture(), PATHS["edm"].path, x_t, 80.0)
        assert low.dtype == jnp.float32
    high = mixture_consistency(Mixture(), PATHS["edm"].path, jnp.linspace(-100.0, 100.0, 9), 80.0)
    np.testing.assert_allclose(low, high, rtol=1e-5, atol=1e-5)
