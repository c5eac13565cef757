"""Variational coupling: closed forms of the divergence, limits, and what its gradient reaches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import (
    consistency,
    curricula,
    edm,
    independent,
    linear,
    linear_to,
    pairs,
    pseudo_huber,
    scaled,
    summed_pseudo_huber,
    variational,
)
from losses.distances import elementwise_pseudo_huber, l2
from losses.variational import Posterior
from tests.oracles import Gaussian, gaussian_consistency

KEY = jax.random.key(0)
ECT = partial(pairs.ect, stage=3, mean=0.0, std=1.0)
LAWS = {"ECT": ECT, "iCT": partial(pairs.ict, points=41)}


def test_a_raw_output_is_a_mean_and_a_softplus():
    raw = jnp.asarray([[[0.0, -1.0, 0.0, 3.0]]], jnp.bfloat16)
    mean, std = variational.posterior(raw)
    np.testing.assert_allclose(mean, [[[0, -1]]])
    np.testing.assert_allclose(std, [[[np.log(2), np.log1p(np.exp(3))]]], rtol=1e-6)
    assert mean.dtype == std.dtype == jnp.float32
    floor = variational.posterior(jnp.full((1, 2), -200.0))
    assert jnp.isfinite(variational.divergence(floor)).all()
    with pytest.raises(ValueError, match="even number of channels"):
        variational.posterior(jnp.zeros((2, 3)))


@pytest.mark.usefixtures("float64")
def test_the_divergence_is_that_of_two_gaussians():
    """Against E_q[ln q - ln N(0, I)] by quadrature; 0 at N(0, I) alone; ln 2 of width costs 0.107 an element."""
    mean, std = jnp.asarray([[0.5, -1.0, 0.0]]), jnp.asarray([[0.3, 1.7, 1.0]])
    points, masses = np.polynomial.hermite_e.hermegauss(20)
    z = mean[..., None] + std[..., None] * points
    log_ratio = -(points**2) / 2 - jnp.log(std)[..., None] + z**2 / 2
    expected = jnp.sum(log_ratio * masses) / masses.sum()
    np.testing.assert_allclose(variational.divergence(Posterior(mean, std)), expected[None], rtol=1e-12)
    zero = Posterior(jnp.zeros((2, 4, 4, 1)), jnp.ones((2, 4, 4, 1)))
    np.testing.assert_array_equal(variational.divergence(zero), [0, 0])
    start = variational.divergence(variational.posterior(jnp.zeros((1, 8, 8, 2))))
    np.testing.assert_allclose(start, 64 * ((np.log(2) ** 2 - 1) / 2 - np.log(np.log(2))), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_noise_has_the_law_of_the_posterior():
    x = jnp.ones((50_000, 2))
    same, z = variational.coupling(KEY, x, posterior=Posterior(0.7 * x, 0.2 * x))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose([z.mean(), z.std()], [0.7, 0.2], atol=3e-3)
    with pytest.raises(ValueError, match="the posterior of"):
        variational.coupling(KEY, x, posterior=Posterior(x[:1], x[:1]))


@pytest.mark.parametrize("name", LAWS)
def test_at_the_limit_of_a_large_beta_it_is_plain_consistency_training(name):
    """The divergence then holds the posterior at N(0, I), and the draws are the same."""
    x = jax.random.normal(KEY, (16, 3))
    standard = partial(variational.coupling, posterior=Posterior(jnp.zeros_like(x), jnp.ones_like(x)))

    def value(coupling):
        def loss(k):
            f = lambda x, t: k * x / (1 + t[:, None])
            return consistency(f, x, KEY, pairs=LAWS[name], coupling=coupling)[0].sum()

        return jax.value_and_grad(loss)(0.9)

    np.testing.assert_allclose(value(standard), value(independent), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_encoder_learns_from_the_first_state_alone():
    """Its gradient is weight d'(f(x_t) - goal) f'(x_t) t dz, with one z for both states and none through the goal."""
    x = jnp.asarray([[0.4], [-0.8]])
    law = lambda key, n: (jnp.full(n, 2.0), jnp.full(n, 0.5), jnp.full(n, 3.0))
    f = lambda x, t: jnp.sin(x) / (1 + t[:, None])

    def loss(phi):
        coupling = partial(variational.coupling, posterior=Posterior(phi[0] * x, phi[1] * jnp.ones_like(x)))
        return consistency(f, x, KEY, pairs=law, distance=l2, coupling=coupling)[0].sum()

    phi = jnp.asarray([0.3, 0.8])
    epsilon = jax.random.normal(jax.random.split(KEY)[1], x.shape)
    z = phi[0] * x + phi[1] * epsilon
    t = jnp.full(2, 2.0)
    goal = f(x + 0.5 * z, jnp.full(2, 0.5))
    slope = 3.0 * 2 * (f(x + 2 * z, t) - goal) * jnp.cos(x + 2 * z) / 3 * 2
    np.testing.assert_allclose(jax.grad(loss)(phi), [jnp.sum(slope * x), jnp.sum(slope * epsilon)], rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_the_weight_of_the_divergence_grows_with_the_curriculum():
    """beta = 10 over the largest hop: 0.25, 4, 32 at ECT's stages 0, 4, 7; 0.288 and 29.4 at 11 and 1281 levels."""
    hops = [float(pairs.ect_hop(jnp.full(1, 80.0), stage=stage)[1][0]) for stage in (0, 4, 7)]
    np.testing.assert_allclose(10 / np.asarray(hops), [0.25, 4, 32], rtol=1e-6)
    for step, expected in ((0, 0.288), (399_999, 29.4)):
        points = curricula.ict_points(jnp.asarray(step), steps=400_000)
        low = pairs.karras_time(points - 2, points, sigma_min=0.002, sigma_max=80.0, rho=7.0)
        assert 10 / (80 - low) == pytest.approx(expected, rel=2e-3)


@pytest.mark.usefixtures("float64")
def test_the_linear_kernel_is_the_straight_path_in_noise_levels():
    t = jnp.asarray([0.0, 0.3, 20.0, 80.0])
    path, straight = linear_to(80.0), scaled(linear, 80.0)
    for got, wanted in zip(path, straight, strict=True):
        np.testing.assert_allclose(got(t), wanted(t / 80), rtol=1e-12)
    assert path.alpha(t)[-1] == 0
    with pytest.raises(ValueError, match="positive"):
        linear_to(0.0)


@pytest.mark.usefixtures("float64")
def test_the_exact_function_of_gaussian_data_with_a_boundary():
    """m + sqrt((s^2 + 0.002^2) / (s^2 + t^2)) (x - m) on the EDM path."""
    x, t = jnp.asarray([[1.0], [-30.0]]), jnp.asarray([0.5, 80.0])
    expected = 0.3 + jnp.sqrt((0.49 + 0.002**2) / (0.49 + t[:, None] ** 2)) * (x - 0.3)
    np.testing.assert_allclose(gaussian_consistency(Gaussian(0.3, 0.7), edm, x, t, 0.002), expected, rtol=1e-12)


def test_levels_stop_at_the_end_of_the_path():
    law = partial(pairs.ect, stage=7, mean=3.0, std=2.0)
    t, s, weight = law(KEY, 1000, sigma_max=80.0)
    free, *_ = law(KEY, 1000)
    np.testing.assert_array_equal(t, jnp.minimum(free, 80))
    assert (t == 80).sum() > 100
    np.testing.assert_allclose(weight * (t - s), 1, rtol=1e-3)
    np.testing.assert_allclose(s[t == 80], 79.6875)


@pytest.mark.usefixtures("float64")
def test_the_distance_of_the_elements_is_not_that_of_the_whole():
    a, b = jnp.asarray([[3.0, 0.0, -4.0]]), jnp.zeros((1, 3))
    c = 0.1
    expected = sum(np.sqrt(d**2 + c**2) - c for d in (3, 0, 4))
    np.testing.assert_allclose(summed_pseudo_huber(a, b, c=c), [expected], rtol=1e-12)
    np.testing.assert_allclose(summed_pseudo_huber(a, b, c=c), 3 * elementwise_pseudo_huber(a, b, c=c), rtol=1e-12)
    assert pseudo_huber(a, b, c=c)[0] < expected - 1
    with pytest.raises(ValueError, match="c > 0"):
        summed_pseudo_huber(a, b, c=0.0)
