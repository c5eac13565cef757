from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import diffusions, euler, euler_maruyama, grids, noise, sample_keys
from samplers.diffusions import Diffusion
from tests.oracles import PATHS, Gaussian, gaussian_score, gaussian_velocity

DATA = Gaussian(0.7, 0.5)
LINEAR = PATHS["linear"].path
N = 20_000
DIFFUSIONS: dict[str, Diffusion] = {
    "score_based": partial(diffusions.score_based, path=LINEAR),
    "noise_level": partial(diffusions.noise_level, path=LINEAR),
    "linear": diffusions.linear,
    "decreasing": diffusions.decreasing,
    "increasing_decreasing": diffusions.increasing_decreasing,
    "constant": partial(diffusions.constant, value=0.7),
}


def velocity(path):
    return partial(gaussian_velocity, DATA, path)


def recursion(path, diffusion: Diffusion, grid: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation after all steps, from the exact marginal at the first time: each step is affine."""
    start = jnp.asarray(grid[0])
    alpha, sigma = float(path.alpha(start)), float(path.sigma(start))
    mean, variance = alpha * DATA.mean, (alpha * DATA.std) ** 2 + sigma**2
    times = jnp.asarray(grid)
    at = jnp.stack([jnp.zeros(len(grid)), jnp.ones(len(grid))], axis=1)
    w = diffusion(times)
    drifts = np.asarray(
        gaussian_velocity(DATA, path, at, times) - w[:, None] * gaussian_score(DATA, path, at, times), np.float64
    )
    steps = np.diff(grid, append=0.0)
    for i, (h, (at_0, at_1)) in enumerate(zip(steps, drifts, strict=True)):
        mean += h * (at_0 + (at_1 - at_0) * mean)
        variance *= (1 + h * (at_1 - at_0)) ** 2
        if i < len(grid) - 1:
            variance += 2 * float(w[i]) * -h
    return mean, float(np.sqrt(variance))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", DIFFUSIONS)
def test_marginals_of_a_gaussian_are_those_of_the_data_for_every_diffusion(name):
    """What n steps leave out is below 2 / n in mean and standard deviation; a wrong score would stay."""
    for n in (500, 2000):
        mean, std = recursion(LINEAR, DIFFUSIONS[name], np.linspace(0.98, 1 / n, n))
        np.testing.assert_allclose([mean, std], DATA, atol=2 / n)


@pytest.mark.parametrize(("path", "name"), [*(("linear", name) for name in DIFFUSIONS), ("cosine", "decreasing")])
def test_samples_follow_the_law_of_the_steps(path, name):
    """To 4 standard errors, from a coarse grid where noise, drift and the last step are all of size."""
    path, grid = PATHS[path].path, np.linspace(0.95, 0.2, 6)
    keys = sample_keys(0, jnp.arange(N))
    alpha, sigma = path.alpha(jnp.float32(0.95)), path.sigma(jnp.float32(0.95))
    z = noise.initial(keys, (1,))
    x = alpha * DATA.mean + jnp.hypot(alpha * DATA.std, sigma) * z

    @jax.jit
    def sample(x, keys):
        return euler_maruyama(velocity(path), x, grid, keys, path=path, diffusion=DIFFUSIONS[name])

    got = np.asarray(sample(x, keys))
    mean, std = recursion(path, DIFFUSIONS[name], grid)
    assert abs(got.mean() - mean) < 4 * std / np.sqrt(N)
    assert abs(got.std() / std - 1) < 4 / np.sqrt(2 * N)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["linear", "edm", "trigflow"])
def test_without_diffusion_it_is_euler(name):
    path, _, high = PATHS[name]
    x, keys = high * jax.random.normal(jax.random.key(0), (4, 3)), sample_keys(0, np.arange(4))
    grid = grids.linear(5, start=high)
    no_noise = partial(diffusions.constant, value=0.0)
    sample = jax.jit(partial(euler_maruyama, velocity(path), times=grid, path=path, diffusion=no_noise))
    expected = jax.jit(partial(euler, velocity(path), times=grid))(x)
    # Not to the bit: they are two programs, in which a compiler may round differently.
    np.testing.assert_allclose(sample(x, keys=keys), expected, rtol=1e-13)


def test_pure_noise_is_a_start_but_not_for_a_diffusion_that_is_infinite_there():
    x, keys = jax.random.normal(jax.random.key(0), (4, 3)), sample_keys(0, np.arange(4))
    for name in DIFFUSIONS.keys() - {"score_based"}:
        got = euler_maruyama(
            velocity(LINEAR), x, np.linspace(1, 0.04, 4), keys, path=LINEAR, diffusion=DIFFUSIONS[name]
        )
        assert np.isfinite(got).all()
    for name in ("linear", "cosine"):
        path = PATHS[name].path
        score_based = partial(diffusions.score_based, path=path)
        with pytest.raises(ValueError, match=r"finite and at least 0 at every time, got inf at t = 1"):
            jax.jit(lambda x: euler_maruyama(velocity(path), x, [1.0, 0.5], keys, path=path, diffusion=score_based))(x)  # noqa: B023


def test_a_negative_diffusion_is_refused():
    keys = sample_keys(0, np.arange(2))
    with pytest.raises(ValueError, match=r"at least 0 at every time, got -0\.5 at t = 0\.5"):
        euler_maruyama(
            velocity(LINEAR), jnp.ones((2, 3)), [1.0, 0.5], keys, path=LINEAR, diffusion=lambda t: 2 * t - 1.5
        )


def test_one_time_is_one_step_without_noise():
    x, keys = jnp.ones((2, 3)), sample_keys(0, np.arange(2))
    got = euler_maruyama(lambda x, t: x, x, [0.5], keys, path=LINEAR, diffusion=diffusions.linear)
    # v = x = 1 at t = 0.5: z = x + (1 - t) v = 1.5 and the score -3, so x - 0.5 (1 + 0.5 * 3).
    np.testing.assert_allclose(got, -0.25, rtol=1e-6)


def test_samples_belong_to_their_keys():
    x, keys = jax.random.normal(jax.random.key(0), (4, 3)), sample_keys(0, np.arange(4))
    sample = partial(euler_maruyama, velocity(LINEAR), times=[0.9, 0.5], path=LINEAR, diffusion=diffusions.linear)
    np.testing.assert_array_equal(sample(x[2:], keys=keys[2:]), sample(x, keys=keys)[2:])
    assert (sample(x, keys=keys[::-1]) != sample(x, keys=keys)).all()


# ---- The diffusions --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_the_score_based_one_makes_the_forward_sde_forget_nothing_but_the_score(name):
    """With it v + w score, the drift of the forward SDE, is alpha'/alpha x: the same whatever the data are."""
    path, low, high = PATHS[name]
    t, x = jnp.linspace(low, high, 5), jax.random.normal(jax.random.key(0), (5, 3))
    w = diffusions.score_based(t, path=path)[:, None]
    forward = gaussian_velocity(DATA, path, x, t) + w * gaussian_score(DATA, path, x, t)
    rate = jax.vmap(jax.grad(lambda t: jnp.log(path.alpha(t))))(t)
    np.testing.assert_allclose(forward, rate[:, None] * x, rtol=1e-9, atol=1e-10)


def test_values_as_published_with_time_reversed():
    """SiT writes them for t = 1 at data: (cos(pi t) + 1)^2 / 4, sin^2(pi t), 1 - t, sigma."""
    tau = jnp.asarray([0.1, 0.5, 0.8])
    t = 1 - tau
    np.testing.assert_allclose(diffusions.decreasing(t), (np.cos(np.pi * tau) + 1) ** 2 / 4, rtol=1e-5)
    np.testing.assert_allclose(diffusions.increasing_decreasing(t), np.sin(np.pi * tau) ** 2, rtol=1e-5)
    np.testing.assert_allclose(diffusions.linear(t), 1 - tau, rtol=1e-6)
    np.testing.assert_allclose(diffusions.noise_level(t, path=LINEAR), 1 - tau, rtol=1e-6)
    np.testing.assert_allclose(diffusions.score_based(t, path=LINEAR), (1 - tau) / tau, rtol=1e-5)
    np.testing.assert_allclose(diffusions.constant(t), 1)
