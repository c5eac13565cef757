from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from samplers import euler, grids, rectified
from tests.oracles import Gaussian, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)
VELOCITY = partial(gaussian_velocity, Gaussian(), paths.linear)


@pytest.mark.usefixtures("float64")
def test_one_step_is_eulers():
    for start in (1.0, 1 - 1e-5):
        x = jnp.asarray(X) * start
        np.testing.assert_allclose(rectified(VELOCITY, x, [start]), euler(VELOCITY, x, [start]), rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_straight_trajectories_are_followed_exactly(end):
    """x = m + s z."""

    def net(x_t, t):
        t = t[:, None]
        z = (x_t - (1 - t) * 0.3) / ((1 - t) * 0.7 + t)
        return z - 0.3 - 0.7 * z

    expected = (1 - end) * (0.3 + 0.7 * X) + end * X
    for n in (1, 2, 5):
        np.testing.assert_allclose(rectified(net, jnp.asarray(X), grids.linear(n), end=end), expected, atol=1e-13)


@pytest.mark.usefixtures("float64")
def test_every_step_mixes_the_prediction_with_the_noise_of_the_start():
    """On N(m, s^2) the posterior mean at t is m + k (x_t - (1 - t) m): a recursion of two lines."""
    x, z = jnp.asarray(X), X
    for t, s in ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)):
        gain = (1 - t) * 0.49 / ((1 - t) ** 2 * 0.49 + t**2)
        x = (1 - s) * (0.3 + gain * (x - (1 - t) * 0.3)) + s * z
    np.testing.assert_allclose(rectified(VELOCITY, jnp.asarray(X), grids.linear(4)), x, rtol=1e-12)
    assert np.abs(x - euler(VELOCITY, jnp.asarray(X), grids.linear(4))).max() > 0.01


def test_state_keeps_its_dtype_and_times_end_at_1():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert rectified(lambda x, t: x.astype(jnp.float32), x, [1.0, 0.5]).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"ends at time 1, got times from 80\.0"):
        rectified(lambda x, t: x, x, [80.0, 1.0])
