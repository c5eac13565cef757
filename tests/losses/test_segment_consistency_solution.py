"""Multistep consistency at its exact solution on Gaussian data, and aDDIM.

For data N(0, s^2) on the cosine path with V = alpha^2 s^2 + sigma^2 the ideal network of a segment that ends at r is
x* = (sqrt(V_r/V_t) - sigma_r/sigma_t) / (alpha_r - alpha_t sigma_r/sigma_t) x_t: DDIM takes it along the flow to r.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from losses.segment_consistency import addim
from losses.types import Net
from samplers import ddim, grids
from tests.losses.recorded import recorder
from tests.oracles import Gaussian, gaussian_denoiser, gaussian_flow_map

DATA = Gaussian(0.0, 0.7)


# ---- The exact solution ----------------------------------------------------------------------------------------------


def root_variance(t: Any) -> Any:
    return jnp.hypot(jnp.cos(jnp.pi / 2 * t) * DATA.std, jnp.sin(jnp.pi / 2 * t))


def angle(t: Any) -> Any:
    return jnp.arctan2(jnp.sin(jnp.pi / 2 * t), jnp.cos(jnp.pi / 2 * t) * DATA.std)


def ideal_factor(t: Any, r: Any) -> Any:
    ratio = jnp.sin(jnp.pi / 2 * r) / jnp.sin(jnp.pi / 2 * t)
    return (root_variance(r) / root_variance(t) - ratio) / (jnp.cos(jnp.pi / 2 * r) - jnp.cos(jnp.pi / 2 * t) * ratio)


def segment_end(t: Any, segments: int) -> Any:
    """The end of the segment whose upper edge is included."""
    return (jnp.ceil(t * segments - 1e-9) - 1) / segments


def ideal(segments: int) -> Net:
    return lambda x, t: ideal_factor(t, segment_end(t, segments))[:, None] * x


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("segments", [1, 2, 3, 4, 8, 16])
def test_ddim_with_the_ideal_network_follows_the_flow_in_any_number_of_steps(segments):
    x = jnp.linspace(-2, 2, 5)[:, None]
    got = ddim(ideal(segments), x, grids.linear(segments), path=paths.cosine)
    np.testing.assert_allclose(got, gaussian_flow_map(DATA, paths.cosine, x, 1.0, 0.0), rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_ideal_network_lies_between_denoiser_and_consistency_function():
    x, t = jnp.ones((4, 1)), jnp.asarray([0.2, 0.5, 0.8, 1.0])
    exact = gaussian_denoiser(DATA, paths.cosine, x, t)[:, 0]
    np.testing.assert_allclose(ideal_factor(t, t - 1e-6), exact, rtol=1e-5, atol=1e-5)
    end = gaussian_flow_map(DATA, paths.cosine, x, t, 0.0)[:, 0]
    np.testing.assert_allclose(ideal_factor(t, jnp.zeros(4)), end, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n", [4, 64])
def test_denoiser_in_n_segments_shrinks_by_the_product_of_cosines(n):
    """What the model is with many segments: a diffusion model, and its sampler's standard deviation."""
    times = grids.linear(n)
    got = ddim(partial(gaussian_denoiser, DATA, paths.cosine), jnp.ones((1, 1)), times, path=paths.cosine)
    product = np.prod(np.cos(np.diff(np.asarray(angle(jnp.asarray([*times, 0.0]))))))
    np.testing.assert_allclose(got, DATA.std * product, rtol=1e-10)
    assert 1 - product < 1.5 / n


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("segments", "order"), [(1, 2), (3, 1)])
@pytest.mark.parametrize("distilled", [False, True])
def test_target_of_the_ideal_network(distilled, segments, order):
    """Its mean given x_t is (cos(theta_t - theta_s) - 1) sqrt(V_r/V_t) / (alpha_r - alpha_t sigma_r/sigma_t) x_t off.

    In training that is a mean, and with an exact teacher and plain DDIM it is the target itself. The goal is linear in
    x and z, so two runs with the same key give both coefficients at every level.
    """
    run = recorder(
        ideal(segments), segments=segments, eta=0.0,
        teacher=partial(gaussian_denoiser, DATA, paths.cosine) if distilled else None,
    )  # fmt: skip
    one, none = jnp.ones((256, 1)), jnp.zeros((256, 1))
    largest = []
    for intervals in (16, 32, 64):
        t, of_x = (np.asarray(a) for a in run(one, none, intervals))
        of_x, of_z = of_x[:, 0], np.asarray(run(none, one, intervals)[1][:, 0])
        alpha, sigma = np.cos(np.pi / 2 * t), np.sin(np.pi / 2 * t)
        if distilled:
            np.testing.assert_allclose(of_x * sigma, of_z * alpha, rtol=1e-8, atol=1e-10)
        slope = (of_x * alpha * DATA.std**2 + of_z * sigma) / root_variance(t) ** 2
        s, r = t - 1 / (segments * intervals), segment_end(t, segments)
        whole = np.cos(np.pi / 2 * r) - alpha * np.sin(np.pi / 2 * r) / sigma
        off = (np.cos(angle(t) - angle(s)) - 1) * root_variance(r) / root_variance(t) / whole
        np.testing.assert_allclose(slope - ideal_factor(t, r), off, rtol=1e-6, atol=1e-10)
        largest.append(np.abs(off).max())
    # Second order in the step, and first in the last interval of a segment of noise, which is itself as short.
    np.testing.assert_allclose(np.log2(np.divide(largest[:-1], largest[1:])), order, atol=0.3)
    assert largest[-1] < 0.05


# ---- aDDIM -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("eta", "golden"), [(0.0, 0.87743), (0.1, 0.89144), (0.75, 0.97729), (1.0, 1.00823)])
def test_addim_golden(eta, golden):
    """One step t = 0.9 -> 0.5 with the exact denoiser of many elements: its standard deviation over the flow's."""
    t, s = jnp.asarray([0.9]), jnp.asarray([0.5])
    x_t = root_variance(t)[:, None] * jnp.asarray([[1.0, -1.0, 1.0, -1.0]])
    posterior_variance = (DATA.std * paths.cosine.sigma(t) / root_variance(t)) ** 2
    prediction = gaussian_denoiser(DATA, paths.cosine, x_t, t)
    x_s, extra = addim(paths.cosine, x_t, prediction, eta * posterior_variance, t, s)
    factor = x_s / (x_t * (root_variance(s) / root_variance(t))[:, None])
    difference = angle(t) - angle(s)
    sines = jnp.hypot(jnp.sin(angle(t)) * jnp.sin(angle(s)), jnp.sqrt(eta) * jnp.sin(difference))
    exact = jnp.cos(angle(t)) * jnp.cos(angle(s)) + sines
    np.testing.assert_allclose(factor[0], exact[0], rtol=1e-12)
    np.testing.assert_allclose(factor[0], golden, atol=6e-6)
    plain, nothing = addim(paths.cosine, x_t, prediction, jnp.zeros(1), t, s)
    np.testing.assert_allclose(x_s - extra, plain, rtol=1e-12)
    np.testing.assert_array_equal(nothing, 0)


def test_addim_where_there_is_nothing_to_scale():
    """No noise in x_t, no noise at s, no variance: finite, and DDIM."""
    t, s = jnp.asarray([0.5, 0.5, 0.1]), jnp.asarray([0.4, 0.0, 0.0])
    prediction = jnp.ones((3, 4))
    x_t = paths.cosine.alpha(t)[:, None] * prediction
    for variance in (0.0, 0.3):
        x_s, extra = addim(paths.cosine, x_t, prediction, jnp.full(3, variance), t, s)
        assert jnp.isfinite(x_s).all()
        np.testing.assert_allclose(extra, 0, atol=1e-6)
        np.testing.assert_allclose(x_s, paths.cosine.alpha(s)[:, None] * prediction, atol=1e-6)
