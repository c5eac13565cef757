"""Moments on Gaussian data, and numbers of the schedulers that were released with LCM and TCD."""

import importlib
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, paths
from samplers import (
    ddim,
    gamma_stop,
    grids,
    multistep_consistency,
    normal,
    sample_keys,
    shortened,
    shortened_index,
    strategic,
)
from tests.oracles import PATHS, Gaussian, gaussian_consistency, gaussian_denoiser, gaussian_flow_map

EDM, SD = PATHS["edm"].path, paths.scaled_linear_beta()
UNIT = Gaussian(0.0, 1.0)
TABLE = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
"""Stable Diffusion's alpha^2, from its definition."""


@pytest.fixture
def sign_noise(monkeypatch):
    """Sixteen samples whose start and three draws are all signs: mean and variance are exact, not estimates."""
    signs = jnp.asarray(list(product([-1.0, 1.0], repeat=4)))
    for name in ("consistency", "strategic"):
        module = importlib.import_module(f"samplers.{name}")
        monkeypatch.setattr(module, "fresh", lambda keys, number, like: signs[:, number][:, None])
    return signs[:, :1]


@pytest.fixture
def step_by_step():
    """Scans are loops that show their numbers, and nothing waits for a compiler."""
    with jax.disable_jit():
        yield


KEYS = sample_keys(0, np.arange(16))


# ---- Moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64", "step_by_step")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_gamma_sampling_keeps_the_variance_of_every_level(sign_noise, gamma):
    """At every node it is std^2 + t^2 with the exact map; the mean shrinks with what is left of the start."""
    data = Gaussian(0.0, 0.5)
    seen = []

    def flow_map(x, t, s):
        seen.append((t[0], x.std()))
        return gaussian_flow_map(data, EDM, x, t, s)

    times = grids.karras(5)[:-1]
    x = np.hypot(0.5, 80) * sign_noise
    got = strategic(flow_map, x, times, KEYS, path=EDM, stop=gamma_stop(gamma), end=0.002)
    np.testing.assert_allclose([t for t, _ in seen], times, rtol=1e-12)
    np.testing.assert_allclose([std for _, std in seen], np.hypot(0.5, times), rtol=1e-12)
    np.testing.assert_allclose(got.std(), np.hypot(0.5, 0.002), rtol=1e-12)
    if gamma == 0:
        np.testing.assert_allclose(got / x, 0.0062499279, rtol=1e-8)


@pytest.mark.usefixtures("float64", "step_by_step")
def test_gamma_stops():
    times = np.asarray([80.0, 2.0, 0.01])
    np.testing.assert_array_equal(gamma_stop(0.0)(times), times)
    np.testing.assert_array_equal(gamma_stop(1.0)(times), 0.002)
    np.testing.assert_allclose(gamma_stop(0.6)(times), 0.8 * (times - 0.002) + 0.002, rtol=1e-14)
    np.testing.assert_array_equal(gamma_stop(1.0, sigma_min=0.0)(times), 0)


@pytest.mark.usefixtures("float64", "step_by_step")
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_every_eta_keeps_the_law_with_the_exact_map(sign_noise, eta):
    exact = partial(gaussian_flow_map, UNIT, SD)
    run = partial(strategic, exact, sign_noise, grids.latent_consistency(4), KEYS, path=SD)
    got = run(stop=shortened_index(eta))
    np.testing.assert_allclose([got.mean(), got.std()], [0, 1], atol=1e-12)


def ddim_map(path: paths.Path, data: Gaussian) -> Any:
    return conversions.denoiser_to_flow_map(path, partial(gaussian_denoiser, data, path))


@pytest.mark.usefixtures("float64", "step_by_step")
@pytest.mark.parametrize(("eta", "golden"), [(0.0, 0.51278), (0.3, 0.46463), (0.7, 0.40838), (1.0, 0.33548)])
def test_variance_of_four_steps_of_ddim_jumps(sign_noise, eta, golden):
    """V' = r cos^2(theta_t - theta_s) v + 1 - r with r = alpha_t'^2 / alpha_s^2, on unit Gaussian data."""
    times = grids.latent_consistency(4)
    got = strategic(ddim_map(SD, UNIT), sign_noise, times, KEYS, path=SD, stop=shortened_index(eta))
    np.testing.assert_allclose(got.var(), golden, atol=6e-6)
    v, t = 1.0, 999
    for t_next in (759, 499, 259, 0):
        s = int(np.floor((1 - eta) * t_next))
        ratio = TABLE[t_next] / TABLE[s]
        cosine = np.cos(np.arccos(np.sqrt(TABLE[t])) - np.arccos(np.sqrt(TABLE[s])))
        v, t = ratio * cosine**2 * v + 1 - ratio, t_next
    np.testing.assert_allclose(got.var(), v, rtol=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("n", "golden"), [(1, 0.0973230), (4, 0.7160840), (50, 0.9729024)])
def test_deterministic_steps_are_ddim_and_shrink_by_cosines(n, golden):
    """The golden numbers are the float32 scheduler's, whose sigma at timestep 0 has lost four digits."""
    times = grids.latent_consistency(n)

    @jax.jit
    def run(x, keys):
        flow_map, stop = ddim_map(SD, UNIT), shortened(0.0)
        denoiser = partial(gaussian_denoiser, UNIT, SD)
        return strategic(flow_map, x, times, keys, path=SD, stop=stop), ddim(denoiser, x, times, path=SD)

    got, expected = run(jnp.ones((2, 1)), KEYS[:2])
    angles = np.arccos(np.sqrt(TABLE[np.append(times, 0).astype(int)]))
    np.testing.assert_allclose(got, np.prod(np.cos(np.diff(angles))), rtol=1e-11)
    np.testing.assert_allclose(got, golden, atol=5e-7)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.usefixtures("float64", "step_by_step")
@pytest.mark.parametrize(("n", "golden"), [(1, 0.00466), (2, 0.2016), (4, 0.3114)])
def test_lcm_sampling_shows_whether_one_has_distilled(sign_noise, n, golden):
    """The exact function keeps a unit variance; with the plain denoiser most of it is lost, v -> a (a v + 1 - a).

    The golden numbers were drawn, not computed.
    """
    times = grids.latent_consistency(n)
    run = partial(multistep_consistency, x=sign_noise, times=times, keys=KEYS, path=SD)
    np.testing.assert_allclose(run(lambda x, t: x).var(), 1, rtol=1e-12)
    got = run(partial(gaussian_denoiser, UNIT, SD)).var()
    first, *later = TABLE[times.astype(int)]
    v = first
    for a in later:
        v = a * (a * v + 1 - a)
    np.testing.assert_allclose(got, v, rtol=1e-11)
    np.testing.assert_allclose(got, golden, rtol=0.01)


def test_without_a_stop_compiled_code_adds_no_noise():
    """Where a compiler contracts sigma^2 - sigma^2, what is left over is noise of 0.02 at 80 in float32."""
    x = 80 * normal(KEYS, (2,))
    run = jax.jit(lambda x, keys: strategic(
        lambda x, t, s: x, x, [90.1, 80.3, 70.7, 33.3], keys, path=EDM, stop=gamma_stop(0.0), end=0.002
    ))  # fmt: skip
    np.testing.assert_array_equal(run(x, KEYS), x)


# ---- Against other samplers and released schedulers ------------------------------------------------------------------


def test_gamma_one_is_consistency_sampling_draw_for_draw():
    data, times = Gaussian(), [80.0, 2.0, 0.5]
    x = 80 * normal(KEYS, (3,))
    flow_map = partial(gaussian_flow_map, data, EDM)
    f = partial(gaussian_consistency, data, EDM, end=0.002)
    got = strategic(flow_map, x, times, KEYS, path=EDM, stop=gamma_stop(1.0), end=0.002)
    expected = multistep_consistency(f, x, times, KEYS, path=EDM, sigma_min=0.002)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.usefixtures("float64", "step_by_step")
def test_tcd_against_its_scheduler():
    """A network that says the noise is 0.85 x; the authors' table is in float32."""
    flow_map = conversions.denoiser_to_flow_map(SD, lambda x, t: conversions.from_z(SD, x, 0.85 * x, t).x)
    x, times = jnp.ones((1, 1)), grids.latent_consistency(4)
    states = []

    def seen(x, t, s):
        states.append(flow_map(x, t, s))
        return states[-1]

    strategic(seen, x, times, KEYS[:1], path=SD, stop=shortened_index(0.0))
    np.testing.assert_allclose(np.ravel(states), [1.33624029, 1.49683905, 1.38308716, 0.89197600], rtol=3e-6)
    np.testing.assert_array_equal(shortened_index()(np.asarray([759.0, 499.0, 259.0])), [531, 349, 181])
    np.testing.assert_allclose(flow_map(x, jnp.asarray([999.0]), jnp.asarray([531.0])), 1.82559800, rtol=3e-6)


# ---- What it does with its arguments ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("step_by_step")
def test_jumps_to_the_stops_and_noises_up_to_the_times(sign_noise):
    asked = []

    def flow_map(x, t, s):
        asked.append((float(t[0]), float(s[0])))
        return jnp.zeros_like(x)

    got = strategic(flow_map, sign_noise, [8.0, 4.0, 2.0], KEYS, path=EDM, stop=shortened(0.5), end=1.0)
    assert asked == [(8.0, 2.0), (4.0, 1.0), (2.0, 1.0)]
    np.testing.assert_array_equal(got, 0)  # no noise after the last


def test_one_time_is_one_jump_and_the_state_keeps_its_dtype():
    half = lambda x, t, s: (x * (s / t)[:, None]).astype(jnp.bfloat16)
    for times in ([4.0], [4.0, 2.0]):
        got = strategic(half, jnp.ones((16, 2)), times, KEYS, path=EDM, stop=shortened(0.0), end=1.0)
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, 0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shortened(-0.1), r"eta must lie in \[0, 1\], got -0.1"),
        (lambda: shortened_index(1.1), r"eta must lie in \[0, 1\], got 1.1"),
        (lambda: gamma_stop(float("nan")), r"gamma must lie in \[0, 1\], got nan"),
        (lambda: gamma_stop(0.5, sigma_min=-1.0), "sigma_min must be finite and not negative, got -1.0"),
    ],
)
def test_shares_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "stop",
    [shortened(1.0), lambda t: 2 * t, lambda t: t[:1], lambda t: np.nan * t],
    ids=["below", "above", "few", "nan"],
)
def test_stops_that_are_none(stop):
    with pytest.raises(ValueError, match=r"between the end 0.002 and their times \[2. 1.\]"):
        strategic(lambda x, t, s: x, jnp.ones((16, 1)), [80.0, 2.0, 1.0], KEYS, path=EDM, stop=stop, end=0.002)
