from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import addim, addim_step, ddim
from samplers.addim import assumed_variance
from tests.oracles import PATHS, Gaussian, gaussian_denoiser

COSINE = PATHS["cosine"].path
DATA = Gaussian(0.0, 0.7)
X = np.linspace(-2, 2, 12).reshape(4, 3)


def angle(path, t):
    return float(jnp.arctan2(path.sigma(jnp.asarray(t)), path.alpha(jnp.asarray(t)) * DATA.std))


def marginal_std(path, t):
    return float(jnp.hypot(path.alpha(jnp.asarray(t)) * DATA.std, path.sigma(jnp.asarray(t))))


def posterior_variance(path, eta, t):
    alpha, sigma = path.alpha(t), path.sigma(t)
    return eta * (DATA.std * sigma) ** 2 / ((alpha * DATA.std) ** 2 + sigma**2)


def std_factor(path, eta, times, end):
    """Standard deviation after sampling relative to the exact flow; a sample starts with its norm sqrt(d V)."""
    z = jnp.asarray([[1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, -1.0]])
    x = marginal_std(path, times[0]) * z
    net = partial(gaussian_denoiser, DATA, path)
    got = addim(net, x, times, path=path, variance=partial(posterior_variance, path, eta), end=end)
    ratio = np.asarray(got / z) / marginal_std(path, end)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-12)
    return ratio[0, 0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "factor"), [(0.0, 0.87743), (0.1, 0.89144), (0.75, 0.97729), (1.0, 1.00823)])
def test_golden_standard_deviation_of_a_step(eta, factor):
    np.testing.assert_allclose(std_factor(COSINE, eta, [0.9], 0.5), factor, atol=6e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("at_zero", [False, True])
def test_gaussian_closed_form(name, eta, at_zero):
    """cos a cos b + sqrt(sin^2 a sin^2 b + eta sin^2(a - b)), a and b the angles of t and s, s = 0 included."""
    path, low, high = PATHS[name]
    t, s = 0.8 * high, 0.0 if at_zero else low
    a, b = angle(path, t), angle(path, s)
    expected = np.cos(a) * np.cos(b) + np.sqrt((np.sin(a) * np.sin(b)) ** 2 + eta * np.sin(a - b) ** 2)
    np.testing.assert_allclose(std_factor(path, eta, [t], s), expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_without_variance_it_is_ddim(name):
    path, low, high = PATHS[name]
    net, times = partial(gaussian_denoiser, Gaussian(), path), [0.9 * high, 0.4 * high, 0.1 * high]
    for end in (low, 0.0):
        a = addim(net, jnp.asarray(X), times, path=path, variance=jnp.zeros_like, end=end)
        np.testing.assert_allclose(a, ddim(net, jnp.asarray(X), times, path=path, end=end), rtol=1e-11, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_adds_the_missing_variance_of_each_sample():
    """|x_s - alpha_s D|^2 = sigma_s^2 |eps|^2 + d z_var for every sample, with its own t, s, variance and norm."""
    x_t, denoised = jnp.asarray(X), jnp.asarray(X[::-1].copy())
    t, s, variance = jnp.asarray([0.9, 0.6, 0.5, 0.3]), jnp.asarray([0.5, 0.5, 0.0, 0.2]), jnp.asarray([0.1, 2, 0.3, 0])
    x_s = addim_step(x_t, denoised, variance, t, s, path=COSINE)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((COSINE.alpha(r), COSINE.sigma(r)) for r in (t, s))
    eps = (X - np.asarray(alpha_t)[:, None] * X[::-1]) / np.asarray(sigma_t)[:, None]
    z_variance = (alpha_s - alpha_t * sigma_s / sigma_t) ** 2 * variance
    got = jnp.sum((x_s - alpha_s[:, None] * denoised) ** 2, axis=1)
    np.testing.assert_allclose(got, sigma_s**2 * (eps**2).sum(axis=1) + 3 * z_variance, rtol=1e-10)


def test_a_sample_does_not_depend_on_its_batch():
    net = partial(gaussian_denoiser, Gaussian(), COSINE)
    x = jnp.asarray(X, jnp.float32)
    together = addim(net, x, [0.9, 0.5], path=COSINE)
    alone = jnp.concatenate([addim(net, x[i : i + 1], [0.9, 0.5], path=COSINE) for i in range(len(x))])
    np.testing.assert_allclose(alone, together, rtol=1e-6)


def test_the_assumed_variance():
    """0.1 / (2 + SNR): 0.05 in pure noise, 1/30 where SNR = 1, about 0.1 / SNR near data, and 0 at data."""
    got = assumed_variance(jnp.asarray([1.0, 0.5, 0.01, 0.0]), path=COSINE)
    near_data = 0.1 / (2 + 1 / np.tan(np.pi / 200) ** 2)
    np.testing.assert_allclose(got, [0.05, 1 / 30, near_data, 0.0], rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_it_is_the_default():
    net = partial(gaussian_denoiser, Gaussian(), COSINE)
    default = addim(net, jnp.asarray(X), [0.9, 0.5], path=COSINE)
    explicit = addim(net, jnp.asarray(X), [0.9, 0.5], path=COSINE, variance=partial(assumed_variance, path=COSINE))
    np.testing.assert_array_equal(default, explicit)
    assert jnp.abs(default - ddim(net, jnp.asarray(X), [0.9, 0.5], path=COSINE)).min() > 1e-3


@pytest.mark.parametrize("variance", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_derivatives_are_finite_at_data_and_without_noise(variance, noise):
    """sqrt(0) at s = 0 without variance, and 0/0 where the prediction leaves no noise."""
    denoised, t = jnp.ones((2, 3)), jnp.full((2,), 0.5)
    x_t = COSINE.alpha(t)[:, None] * denoised + noise

    def step(x_t, denoised, variance):
        return addim_step(x_t, denoised, jnp.full((2,), variance), t, jnp.zeros(2), path=COSINE)

    primals = (x_t, denoised, variance)
    value, tangent = jax.jvp(step, primals, (jnp.ones_like(x_t), jnp.ones_like(denoised), 1.0))
    gradients = jax.grad(lambda *given: step(*given).sum(), argnums=(0, 1, 2))(*primals)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, tangent, gradients)))


def test_bad_times():
    with pytest.raises(ValueError, match=r"must fall from noise to data, strictly, got \[0.5 0.9\]"):
        addim(lambda x, t: x, jnp.ones((2, 3)), [0.5, 0.9], path=COSINE)


def test_state_keeps_its_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.ones((2, 3), dtype)
        assert addim(lambda x, t: x.astype(jnp.bfloat16), x, [1.0, 0.5], path=COSINE).dtype == dtype
