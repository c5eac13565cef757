from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from samplers import grids, invert
from tests.oracles import PATHS, Gaussian, gaussian_flow_map, gaussian_velocity

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "start", "end"), [("linear", 1.0, 0.001), ("edm", 3.0, 0.5)])
def test_second_order_on_the_way_up(name, start, end):
    """The flow map from `end` to the first time, which the oracle knows for any two times."""
    path = PATHS[name].path
    velocity = partial(gaussian_velocity, Gaussian(), path)
    exact = gaussian_flow_map(Gaussian(), path, jnp.asarray(X), end, start)
    errors = []
    for n in (32, 64, 128):
        times = end + (start - end) * grids.linear(n)
        errors.append(np.abs(invert(velocity, jnp.asarray(X), times, end=end) - exact).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15)


def test_an_end_of_0_is_refused():
    with pytest.raises(ValueError, match=r"an end above 0, where velocities are 0/0, got 0\.0"):
        invert(lambda x, t: x, jnp.asarray(X), [1.0], end=0.0)
