from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, linear
from samplers import euler, flow_map
from tests.oracles import PATHS, Gaussian, gaussian_flow_map, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_exact_flow_map_is_exact_in_any_number_of_steps(name, steps):
    path, low, high = PATHS[name]
    times = np.linspace(high, low, steps + 1)
    got = flow_map(partial(gaussian_flow_map, Gaussian(), path), jnp.asarray(X), times[:-1], end=times[-1])
    np.testing.assert_allclose(got, gaussian_flow_map(Gaussian(), path, jnp.asarray(X), high, low), rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_with_the_velocity_for_its_mean_it_is_euler():
    v = partial(gaussian_velocity, Gaussian(), linear)
    jump = conversions.average_velocity_to_flow_map(lambda x, t, s: v(x, t))
    times = [0.9, 0.5, 0.2]
    np.testing.assert_allclose(flow_map(jump, jnp.asarray(X), times), euler(v, jnp.asarray(X), times), rtol=1e-14)


def test_calls_the_map_from_each_time_to_the_next_and_from_the_last_to_the_end():
    seen = []

    def jump(x, t, s):
        seen.append((t.tolist(), s.tolist()))
        return x

    with jax.disable_jit():
        flow_map(jump, jnp.ones((2, 3)), [1.0, 0.5], end=0.25)
    assert seen == [([1.0, 1.0], [0.5, 0.5]), ([0.5, 0.5], [0.25, 0.25])]


def test_state_keeps_its_dtype():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert flow_map(lambda x, t, s: x.astype(jnp.float32), x, [1.0, 0.5]).dtype == jnp.bfloat16
