from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import grids, heun
from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_flow_map,
    gaussian_velocity,
    mixture_cdf,
    mixture_consistency,
    mixture_velocity,
)

X = np.linspace(-2, 2, 5).reshape(5, 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "trigflow", "linear_beta"])
def test_second_order_on_the_gaussian_flow(name):
    path, low, high = PATHS[name]
    start, end = (3.0, 0.5) if name == "edm" else (0.9 * high, max(low, 0.1))
    exact = gaussian_flow_map(Gaussian(), path, jnp.asarray(X), start, end)
    errors = []
    for n in (64, 128, 256):
        times = np.linspace(start, end, n + 1)[:-1]
        got = heun(partial(gaussian_velocity, Gaussian(), path), jnp.asarray(X), times, end=end)
        errors.append(np.abs(got - exact).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("n", "factor"), [(11, 1.1746), (18, 1.0553), (41, 1.0093), (151, 1.0006), (1281, 1.00001)])
def test_golden_product_on_the_karras_grid(n, factor):
    """Standard deviation from 80 to 0.002 relative to the exact flow, s = 0.5."""
    data, path = Gaussian(0.0, 0.5), PATHS["edm"].path
    grid = grids.karras(n)
    x = heun(partial(gaussian_velocity, data, path), jnp.asarray(X), grid[:-1], end=grid[-1])
    exact = gaussian_flow_map(data, path, jnp.asarray(X), grid[0], grid[-1])
    np.testing.assert_allclose(x[0] / exact[0], factor, atol=6e-5 if n < 1281 else 6e-6)


@pytest.mark.usefixtures("float64")
def test_reproduces_the_quantiles_of_a_mixture():
    """A non-linear flow: x and its endpoint have the same rank, and Heun's error falls by four as steps double."""
    path = PATHS["edm"].path
    x = jnp.linspace(-160, 160, 9)[:, None]
    exact = mixture_consistency(Mixture(), path, x, 80.0, 0.002)
    errors = []
    for n in (160, 320, 640):
        grid = grids.karras(n)
        got = heun(partial(mixture_velocity, Mixture(), path), x, grid[:-1], end=grid[-1])
        errors.append(jnp.abs(got - exact).max())
    np.testing.assert_allclose(
        mixture_cdf(Mixture(), path, got, 0.002), mixture_cdf(Mixture(), path, x, 80.0), atol=1e-4
    )
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.25)


def calls(times, **end):
    seen = []

    def net(x, t):
        seen.append(float(t[0]))
        return x

    with jax.disable_jit():
        heun(net, jnp.ones((2, 3)), times, **end)
    return seen


def test_number_of_calls():
    """2N - 1 to data, where the last step is Euler's and nothing is called at 0; 2N to any other end."""
    assert calls([1.0, 0.5, 0.25]) == [1.0, 0.5, 0.5, 0.25, 0.25]
    assert calls([1.0]) == [1.0]
    assert calls([1.0, 0.5], end=0.25) == [1.0, 0.5, 0.5, 0.25]
    assert len(calls(grids.karras(18))) == 35


def test_state_keeps_its_dtype():
    assert heun(lambda x, t: x.astype(jnp.bfloat16), jnp.ones((2, 3)), [1.0, 0.5]).dtype == jnp.float32
