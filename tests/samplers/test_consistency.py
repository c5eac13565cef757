from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import samplers.consistency
from samplers import multistep_consistency, normal, sample_keys
from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_consistency,
    mixture_cdf,
    mixture_consistency,
)

DATA, EDM = Gaussian(0.3, 0.7), PATHS["edm"].path


def sample(times, sigma_min, n, *, path=EDM, data=DATA):
    keys = sample_keys(0, jnp.arange(n))
    x = path.sigma(jnp.asarray(times[0])) * normal(keys, (1,))
    net = partial(gaussian_consistency, data, path, end=sigma_min)
    return np.asarray(multistep_consistency(net, x, times, keys, path=path, sigma_min=sigma_min))


@pytest.fixture
def sign_noise(monkeypatch):
    """Four samples whose two draws are all signs: their mean and variance are exact, not estimates."""
    monkeypatch.setattr(
        samplers.consistency, "fresh", lambda keys, number, like: jnp.asarray([[1.0], [-1.0], [1.0], [-1.0]])
    )
    return jnp.asarray([[1.0], [1.0], [-1.0], [-1.0]])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma_min", [0.002, 0.0])
def test_moments_on_gaussian_data(sign_noise, sigma_min):
    """One step: m (1 - k(T)) and k(T) T. Two: m + k (mean - m) and k^2 (var + t^2 - sigma_min^2)."""
    net = partial(gaussian_consistency, DATA, EDM, end=sigma_min)
    run = partial(multistep_consistency, net, 80 * sign_noise, keys=sample_keys(0, jnp.arange(4)), path=EDM)
    one = run([80.0], sigma_min=sigma_min)
    two = run([80.0, 1.38237], sigma_min=sigma_min)

    def k(t):
        return np.sqrt((0.49 + sigma_min**2) / (0.49 + t**2))

    mean, std = 0.3 * (1 - k(80)), 80 * k(80)
    np.testing.assert_allclose([one.mean(), one.std()], [mean, std], rtol=1e-12)
    mean = 0.3 + k(1.38237) * (mean - 0.3)
    std = k(1.38237) * np.sqrt(std**2 + 1.38237**2 - sigma_min**2)
    np.testing.assert_allclose([two.mean(), two.std()], [mean, std], rtol=1e-12)
    if sigma_min:
        np.testing.assert_allclose([one.mean(), one.std()], [0.29738, 0.69998], atol=6e-6)
        np.testing.assert_allclose([two.mean(), two.std()], [0.29881, 0.70000], atol=6e-6)


@pytest.mark.parametrize(
    ("name", "times"), [("edm", [80.0, 0.821]), ("linear", [1.0, 0.6, 0.3]), ("trigflow", [1.56, 1.1])]
)
def test_moments_with_its_own_noise(name, times):
    got = sample(times, 0.0, 20_000, path=PATHS[name].path)
    assert abs(got.mean() - 0.3) < 4 * 0.7 / np.sqrt(20_000) + 0.003
    assert abs(got.std() / 0.7 - 1) < 4 / np.sqrt(2 * 20_000)


def test_steps_draw_different_noise():
    """With the net x -> 0 the state before a call is sigma z alone: the z of two steps are independent."""
    seen = []

    def net(x, t):
        seen.append(x / t[:, None])
        return jnp.zeros_like(x)

    with jax.disable_jit():
        multistep_consistency(net, jnp.zeros((512, 1)), [4.0, 2.0, 1.0], sample_keys(0, jnp.arange(512)), path=EDM)
    first, second = seen[1][:, 0], seen[2][:, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(512)
    assert abs(first.std() - 1) < 4 / np.sqrt(1024)


def test_ends_with_a_denoising_call():
    """Called once a time, at that time, and what it returns last is returned: nothing is added afterwards."""
    seen = []

    def net(x, t):
        seen.append(float(t[0]))
        return jnp.full_like(x, len(seen))

    with jax.disable_jit():
        x = multistep_consistency(
            net, jnp.ones((2, 3)), [80.0, 2.0, 1.0], sample_keys(0, jnp.arange(2)), path=EDM, sigma_min=0.002
        )
    assert seen == [80.0, 2.0, 1.0]
    np.testing.assert_array_equal(x, 3.0)


@pytest.mark.usefixtures("float64")
def test_exact_function_of_a_mixture_samples_the_mixture():
    n = 20_000
    keys = sample_keys(3, jnp.arange(n))
    x = 80 * normal(keys, (1,))
    net = partial(mixture_consistency, Mixture(), EDM)
    got = np.asarray(multistep_consistency(net, x, [80.0, 0.5], keys, path=EDM))
    for point in (-1.0, -0.6, 0.0, 0.4, 0.8):
        p = float(mixture_cdf(Mixture(), EDM, jnp.asarray(point), 0.0))
        assert abs((got < point).mean() - p) < 4 * np.sqrt(p * (1 - p) / n) + 0.002


@pytest.mark.parametrize("times", [[80.0, 0.002], [80.0, 0.001]])
def test_times_stay_above_sigma_min(times):
    with pytest.raises(ValueError, match=r"must stay above the end 0.002"):
        multistep_consistency(
            lambda x, t: x, jnp.ones((2, 1)), times, sample_keys(0, jnp.arange(2)), path=EDM, sigma_min=0.002
        )


def test_state_keeps_its_dtype():
    for times in ([1.0], [1.0, 0.5]):
        got = multistep_consistency(
            lambda x, t: x.astype(jnp.bfloat16), jnp.ones((2, 3)), times, sample_keys(0, jnp.arange(2)), path=EDM
        )
        assert got.dtype == jnp.float32


def test_later_steps_may_draw_their_noise_from_the_estimate():
    """The first step starts from what it is given; then x_t = alpha x + sigma noise(x), each draw with its number."""
    keys, x = sample_keys(0, jnp.arange(3)), jnp.ones((3, 2))

    def noise(keys, number, x):
        return 0.3 * x + number + 0 * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)

    run = partial(multistep_consistency, lambda x, t: x / 2, x, [2.0, 1.0, 0.5], keys, path=EDM)
    first = 0.5
    second = (first + 1.0 * (0.3 * first + 1)) / 2
    third = (second + 0.5 * (0.3 * second + 2)) / 2
    np.testing.assert_allclose(run(noise=noise), third, rtol=1e-6)
    np.testing.assert_array_equal(run(noise=samplers.consistency.fresh), run())
