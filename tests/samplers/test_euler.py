from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import euler
from tests.oracles import PATHS, Gaussian, gaussian_flow_map, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "trigflow", "linear_beta"])
def test_first_order_on_the_gaussian_flow(name):
    path, low, high = PATHS[name]
    start, end = (3.0, 0.5) if name == "edm" else (0.9 * high, max(low, 0.1))
    exact = gaussian_flow_map(Gaussian(), path, jnp.asarray(X), start, end)
    errors = []
    for n in (64, 128, 256):
        times = np.linspace(start, end, n + 1)[:-1]
        got = euler(partial(gaussian_velocity, Gaussian(), path), jnp.asarray(X), times, end=end)
        errors.append(np.abs(got - exact).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1, atol=0.05)


@pytest.mark.usefixtures("float64")
def test_one_time_is_one_step_to_data():
    x = euler(lambda x, t: x * t[:, None], jnp.asarray(X), [0.5])
    np.testing.assert_allclose(x, X - 0.5 * X * 0.5, rtol=1e-15)


@pytest.mark.usefixtures("float64")
def test_straight_trajectories_need_one_step():
    """Point data: v = (x_t - m) / t, whose lines meet in m."""
    for times in ([1.0], [1.0, 0.7, 0.1]):
        x = euler(lambda x, t: (x - 0.3) / t[:, None], jnp.asarray(X), times)
        np.testing.assert_allclose(x, 0.3, atol=1e-14)


def test_calls_the_network_at_the_times_and_never_at_the_end():
    seen = []

    def net(x, t):
        seen.append(t.tolist())
        return x

    with jax.disable_jit():
        euler(net, jnp.ones((2, 3)), [1.0, 0.5, 0.25])
    assert seen == [[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]


def test_state_keeps_its_dtype():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert euler(lambda x, t: x.astype(jnp.float32), x, [1.0, 0.5]).dtype == jnp.bfloat16
    assert euler(lambda x, t: x.astype(jnp.bfloat16), jnp.ones((2, 3)), [1.0, 0.5]).dtype == jnp.float32


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("n", "golden"), [(1, 0.0), (2, 0.3), (4, 0.6146342), (8, 0.7932278), (100, 0.9820712)])
def test_pcms_deterministic_scheduler_for_straight_paths(n, golden):
    """Every so many of 100 times, shifted towards noise by 3 as for Stable Diffusion 3; unit Gaussian data."""
    u = 1 - np.floor(np.linspace(0, 100, n, endpoint=False)) / 100
    velocity = partial(gaussian_velocity, Gaussian(0.0, 1.0), PATHS["linear"].path)
    got = euler(velocity, jnp.ones((1, 1)), 3 * u / (1 + 2 * u))
    np.testing.assert_allclose(got, golden, atol=5e-7)  # theirs is in float32
