"""Chains of transitions: the marginals of the path, their limits, and what is independent of where they start."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from losses.paths import coefficients
from losses.transitions import ancestral, euler_maruyama, memoryless, no_noise
from tests.oracles import PATHS, Gaussian, gaussian_velocity

DATA = Gaussian(0.3, 0.7)
UNIT = {name: PATHS[name].path for name in ("linear", "cosine", "linear_beta")}


def moments(chain, data, path):
    """Mean and variance of each state of the chain by the exact velocity, which is affine, and its memory of x_0."""
    mean, variance, memory = 0.0, chain.start**2, 1.0
    states = []
    t = jnp.asarray(chain.times)
    at_zero, at_one = (np.asarray(gaussian_velocity(data, path, x, t)) for x in (jnp.zeros_like(t), jnp.ones_like(t)))
    factors = chain.state + chain.velocity * (at_one - at_zero)
    for factor, shift, noise in zip(factors, chain.velocity * at_zero, chain.noise, strict=True):
        mean, variance, memory = factor * mean + shift, factor**2 * variance + noise**2, factor * memory
        states.append((mean, variance, memory))
    return np.array(states).T


def times(n):
    return np.arange(n, 0, -1) / n


def one(t, eta):
    return np.ones_like(t)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", UNIT)
def test_ancestral_steps_to_one_datum_have_the_marginals_of_the_path(name):
    """The data prediction is then exact, and so is every step, however long."""
    path, datum = UNIT[name], Gaussian(0.3, 0.0)
    chain = ancestral(path, times(4), end=0.1)
    mean, variance, _ = moments(chain, datum, path)
    ends = jnp.append(jnp.asarray(chain.times[1:]), 0.1)
    alpha_0 = float(path.alpha(jnp.ones(())))
    assert alpha_0 < 0.01  # on linear_beta the path has this share of the datum at t = 1, where the chain has none
    np.testing.assert_allclose(variance, path.sigma(ends) ** 2, rtol=1e-9)
    np.testing.assert_allclose(mean, 0.3 * path.alpha(ends), rtol=1e-9, atol=0.3 * alpha_0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", UNIT)
def test_any_noise_leaves_the_marginals_of_the_path_and_the_error_falls_with_the_step(name):
    path, end = UNIT[name], 0.05
    chains = {
        "memoryless": lambda t: euler_maruyama(path, t, offset=float(t[0] - t[1]), end=end),
        "constant": lambda t: euler_maruyama(path, t, offset=0, variance=one, end=end),
        "none": lambda t: euler_maruyama(path, t, offset=0, variance=no_noise, end=end),
        "ancestral": lambda t: ancestral(path, t, end=end),
    }
    at_end = [float(c(jnp.asarray(end))) for c in path]
    expected = np.array([at_end[0] * DATA.mean, (at_end[0] * DATA.std) ** 2 + at_end[1] ** 2])
    for chain in chains.values():
        errors = []
        for n in (200, 400):
            mean, variance, _ = moments(chain(end + (1 - end) * times(n)), DATA, path)
            errors.append(np.abs([mean[-1], variance[-1]] - expected).max())
        assert errors[1] < 0.01
        assert errors[1] < 0.7 * errors[0] or name == "linear_beta"  # a chain that remembers x_0 misses that share


@pytest.mark.usefixtures("float64")
def test_memoryless_noise_is_that_of_the_paper():
    t, h = times(40), 1 / 40
    chain = euler_maruyama(paths.linear, t, offset=h)
    np.testing.assert_allclose(chain.noise**2, h * 2 * (t + h) / (1 - t + h), rtol=1e-12)
    np.testing.assert_allclose(chain.velocity, -2 * h, rtol=1e-12)
    np.testing.assert_allclose(chain.state, 1 - h / (1 - t + h), rtol=1e-12, atol=1e-15)
    for path in UNIT.values():  # eta = sigma sigma' - sigma^2 alpha' / alpha
        t = np.array([0.6, 0.1])
        c = coefficients(path, jnp.asarray(t), jnp.asarray(t))
        eta = c.sigma * c.sigma_rate - c.sigma**2 * c.alpha_rate / c.alpha
        chain = euler_maruyama(path, t, offset=0, end=0.05)
        np.testing.assert_allclose(chain.noise**2 / (t - [0.1, 0.05]), 2 * eta, rtol=1e-10)
        np.testing.assert_allclose(chain.velocity / (t - [0.1, 0.05]), -2, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_only_memoryless_chains_forget_where_they_start():
    def memory(variance, offset=0.0):
        chain = euler_maruyama(paths.linear, times(1000), offset=offset, variance=variance)
        return moments(chain, DATA, paths.linear)[2][-1]

    assert abs(memory(memoryless, 1e-3)) < 2e-3
    assert moments(ancestral(paths.linear, times(20)), DATA, paths.linear)[2][-1] == 0
    assert memory(no_noise) == pytest.approx(DATA.std, abs=2e-3)  # the ODE keeps all of it
    assert 0.1 < memory(lambda t, eta: 0.5 * np.ones_like(t)) < 0.6


@pytest.mark.usefixtures("float64")
def test_on_the_linear_path_the_steps_are_the_known_ones():
    t = times(4)
    euler = euler_maruyama(paths.linear, t, offset=0, variance=no_noise)
    np.testing.assert_allclose([euler.state, euler.velocity, euler.noise], [np.ones(4), -np.full(4, 0.25), np.zeros(4)])
    last = ancestral(paths.linear, t)
    np.testing.assert_allclose([last.state[-1], last.velocity[-1], last.noise[-1]], [1, -0.25, 0], atol=1e-12)


@pytest.mark.parametrize("make", [partial(euler_maruyama, offset=0.0, variance=no_noise), ancestral])
def test_times_are_checked_and_a_chain_can_be_made_inside_jit(make):
    for wrong, end in (([], 0), ([0.5, 0.5], 0), ([0.5, 1.0], 0), ([1.0, 0.5], 0.5), ([1.0], -0.1), ([np.inf], 0)):
        with pytest.raises(ValueError, match="fall strictly"):
            make(paths.linear, wrong, end=end)
    made = jax.jit(lambda x: x * make(paths.linear, [1.0, 0.5]).velocity[-1])(1.0)
    assert made == pytest.approx(-0.5)


def test_an_offset_is_positive_where_alpha_is_0():
    with pytest.raises(ValueError, match="offset"):
        euler_maruyama(paths.linear, [0.5], offset=-0.1)
    with pytest.raises(ValueError, match="positive where alpha is 0"):
        euler_maruyama(paths.linear, [1.0, 0.5], offset=0)
    assert np.isfinite(np.concatenate(euler_maruyama(paths.linear, [1.0, 0.5], offset=0, variance=one)[1:])).all()
