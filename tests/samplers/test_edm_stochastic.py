from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Churn, edm_stochastic, grids, heun, normal, sample_keys
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_velocity

DATA, PATH = Gaussian(0.3, 0.7), PATHS["edm"].path
DENOISER = partial(gaussian_denoiser, DATA, PATH)
N = 20_000


def start(n: int, sigma: float = 80.0) -> tuple[jax.Array, jax.Array]:
    keys = sample_keys(0, jnp.arange(n))
    return sigma * normal(keys, (1,)), keys


@pytest.mark.usefixtures("float64")
def test_without_churn_it_is_heun():
    x, keys = start(16)
    grid = grids.karras(8)
    a = edm_stochastic(DENOISER, x, grid, keys, churn=Churn(amount=0.0))
    b = heun(partial(gaussian_velocity, DATA, PATH), x, grid)
    np.testing.assert_allclose(a, b, rtol=1e-11)
    outside = Churn(amount=40.0, low=100.0, high=200.0)
    np.testing.assert_allclose(edm_stochastic(DENOISER, x, grid, keys, churn=outside), b, rtol=1e-11)


def recursion(grid: np.ndarray, churn: Churn) -> tuple[float, float]:
    """Mean and variance of the samples: every step is affine, so they follow from it in closed form."""
    gamma = min(churn.amount / len(grid), np.sqrt(2) - 1)
    mean, variance = 0.0, grid[0] ** 2
    for t, s in zip(grid, [*grid[1:], 0.0], strict=True):
        raised = t * (1 + gamma) if churn.low <= t <= churn.high else t
        variance += (raised**2 - t**2) * churn.noise**2
        slope, h = lambda t: t / (DATA.std**2 + t**2), s - raised
        factor = 1 + h * slope(raised)
        if s > 0:
            factor = 1 + h / 2 * (slope(raised) + slope(s) * factor)
        mean, variance = DATA.mean + factor * (mean - DATA.mean), factor**2 * variance
    return mean, variance


@pytest.mark.parametrize("churn", [Churn(amount=3.0, noise=1.0), Churn(amount=3.0, noise=1.1), Churn()])
def test_moments_of_gaussian_data(churn):
    """Samples follow the recursion to 4 standard errors, and it is close to the data where no noise is inflated."""
    x, keys = start(N)
    grid = grids.karras(12)
    got = np.asarray(jax.jit(partial(edm_stochastic, DENOISER, times=grid, churn=churn))(x, keys=keys))
    mean, variance = recursion(grid, churn)
    assert abs(got.mean() - mean) < 4 * np.sqrt(variance / N)
    assert abs(got.var() / variance - 1) < 4 * np.sqrt(2 / N)


def test_the_recursion_tends_to_the_data():
    for noise, tolerance in ((1.0, 1e-3), (1.1, None)):
        mean, variance = recursion(grids.karras(400), Churn(amount=40.0, noise=noise))
        if tolerance:
            np.testing.assert_allclose([mean, np.sqrt(variance)], [0.3, 0.7], rtol=2e-2)
        else:
            assert np.sqrt(variance) > 0.705


def test_churn_forgets_the_start():
    x, keys = start(512)
    grid = grids.karras(12)
    deterministic = edm_stochastic(DENOISER, x, grid, keys, churn=Churn(amount=0.0))
    churned = jax.jit(partial(edm_stochastic, DENOISER, times=grid, churn=Churn(amount=40.0, noise=1.0)))(x, keys=keys)
    assert np.corrcoef(x[:, 0], deterministic[:, 0])[0, 1] > 0.9999
    assert np.corrcoef(x[:, 0], churned[:, 0])[0, 1] < 0.6


@pytest.mark.parametrize(
    "churn",
    [Churn(amount=-1.0), Churn(noise=-0.1), Churn(low=2.0, high=1.0), Churn(low=-1.0), Churn(amount=float("nan"))],
    ids=str,
)
def test_bad_churn(churn):
    x, keys = start(2)
    with pytest.raises(ValueError, match="churn needs amount, noise >= 0 and 0 <= low <= high, got Churn"):
        edm_stochastic(DENOISER, x, [1.0], keys, churn=churn)


def test_state_keeps_its_dtype():
    x, keys = start(2)
    with jax.enable_x64(True):
        assert edm_stochastic(lambda x, t: x / 2, x, [1.0, 0.5], keys).dtype == x.dtype


def test_the_network_is_compiled_twice_or_so_and_not_once_a_step():
    """The published setting is 256 steps, whose 511 calls would not compile if unrolled."""
    calls = []

    def net(x, t):
        calls.append(t)
        return x / 2

    x, keys = start(2)
    jax.eval_shape(lambda x: edm_stochastic(net, x, grids.karras(256), keys), x)
    assert len(calls) <= 4
