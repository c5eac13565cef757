from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths, rectified_flow
from samplers import euler, grids, heun, straightness
from tests.oracles import Gaussian, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("std", [0.5, 0.7])
def test_of_a_gaussian_flow_is_a_closed_form(std):
    """S = s (2 - pi/2) z^2: the integral of (d sqrt(V_t) / dt)^2 is 1 + s^2 - s pi/2; (1 - s)^2 of it is straight."""
    velocity = partial(gaussian_velocity, Gaussian(0.3, std), paths.linear)
    exact = std * (2 - np.pi / 2) * X[:, 0] ** 2
    errors = []
    for n in (100, 200, 400):
        got = straightness(velocity, jnp.asarray(X), grids.linear(n))
        assert got.shape == (5,)
        assert abs(got[2]) < 1e-12  # z = 0 goes straight to the mean
        errors.append(np.abs(got - exact).max())
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.05)
    assert errors[-1] < 0.02


@pytest.mark.usefixtures("float64")
def test_reflow_of_a_gaussian_flow_is_straight():
    """The pairs that a solver makes, and the velocity that fits them best: affine in x_t, by least squares."""
    velocity = partial(gaussian_velocity, Gaussian(0.3, 0.5), paths.linear)
    z, times = jnp.asarray(X), grids.linear(16)
    x = heun(velocity, z, times)

    def refitted(x_t, t):
        at = t[0]
        state, v = (1 - at) * x + at * z, z - x
        centred = state - state.mean()
        slope = jnp.sum(centred * v) / jnp.sum(centred**2)
        return v.mean() + slope * (x_t - state.mean())

    assert straightness(velocity, z, times).max() > 0.5
    np.testing.assert_allclose(straightness(refitted, z, times), 0, atol=1e-24)
    np.testing.assert_allclose(euler(refitted, z, [1.0]), x, rtol=1e-12)
    loss, _ = rectified_flow(
        refitted, x, jax.random.key(0), times=lambda key, n: jnp.full(n, 0.7), coupling=lambda key, x: (x, z)
    )
    np.testing.assert_allclose(loss, 0, atol=1e-24)


def test_straight_lines_have_none_in_any_precision():
    """Speed 1e4: a difference of sums of squares would leave about 10 in float32."""
    x = jnp.full((3, 2), 1e4)
    got = straightness(lambda x, t: jnp.full_like(x, 1e4 + 1 / 3), x, grids.linear(7))
    np.testing.assert_array_equal(got, 0)


def test_steps_count_as_long_as_they_are():
    """Velocity 1 for three quarters of the time and 5 for one: mean 2, variance 3."""

    def net(x, t):
        return jnp.where(t[:, None] > 0.5, 1.0, 5.0) * jnp.ones_like(x)

    np.testing.assert_allclose(straightness(net, jnp.zeros((2, 2)), [1.0, 0.25]), 2 * 3.0, rtol=1e-6)
