from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths, times
from losses.types import Times

N = 40_000
LEVELS = np.asarray([0.01, 0.1, 0.5, 0.9, 0.99])
NORMAL = np.asarray([-2.326348, -1.281552, 0.0, 1.281552, 2.326348])
"""Quantiles of N(0, 1) at these levels."""

EXACT: dict[str, tuple[Times, np.ndarray]] = {
    "uniform": (times.uniform, LEVELS),
    "uniform shifted": (partial(times.uniform, low=0.25, high=3.0), 0.25 + 2.75 * LEVELS),
    "EDM": (partial(times.lognormal, mean=-1.2, std=1.2), np.exp(-1.2 + 1.2 * NORMAL)),
    "sCM": (times.trig_lognormal, np.arctan(np.exp(-1.0 + 1.4 * NORMAL) / 0.5)),
    "sCM, rescaled": (
        partial(times.trig_lognormal, mean=-0.8, std=1.6, sigma_data=1.0),
        np.arctan(np.exp(-0.8 + 1.6 * NORMAL)),
    ),
    "logit-normal": (times.logit_normal, 1 / (1 + np.exp(-NORMAL))),
    "mode": (
        partial(times.mode, scale=1.29),
        1 - LEVELS[::-1] - 1.29 * (np.cos(np.pi / 2 * LEVELS[::-1]) ** 2 - LEVELS),
    ),
    "mode, of the ends": (
        partial(times.mode, scale=-0.5),
        1 - LEVELS[::-1] + 0.5 * (np.cos(np.pi / 2 * LEVELS[::-1]) ** 2 - LEVELS),
    ),
    "cosmap": (times.cosmap, 1 - 1 / (np.tan(np.pi / 2 * LEVELS) + 1)),
    "U-shaped": (times.u_shaped, 0.5 + np.arcsinh((2 * LEVELS - 1) * np.sinh(2.0)) / 4),
    "uniform, shifted towards noise": (times.shifted(times.uniform, factor=3.0), 3 * LEVELS / (1 + 2 * LEVELS)),
    "shifted logit-normal": (partial(times.logit_normal, mean=-0.4, std=1.5), 1 / (1 + np.exp(0.4 - 1.5 * NORMAL))),
}


@pytest.mark.parametrize("name", EXACT)
def test_quantiles(name):
    """The share of draws below each exact quantile is its level, to 4 standard errors."""
    law, quantiles = EXACT[name]
    t = np.asarray(law(jax.random.key(3), N))
    assert t.shape == (N,)
    assert t.dtype == np.float32
    shares = (t[:, None] < quantiles).mean(axis=0)
    np.testing.assert_array_less(np.abs(shares - LEVELS), 4 * np.sqrt(LEVELS * (1 - LEVELS) / N))


def test_moments():
    key = jax.random.key(0)
    log_t = np.log(times.lognormal(key, N, mean=-1.2, std=1.2))
    assert abs(log_t.mean() + 1.2) < 4 * 1.2 / np.sqrt(N)
    assert abs(log_t.std() - 1.2) < 4 * 1.2 / np.sqrt(2 * N)
    t = np.asarray(times.uniform(key, N))
    assert abs(t.mean() - 0.5) < 4 * np.sqrt(1 / 12 / N)
    assert abs(t.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / N)


def test_positive_mean_favours_noise():
    assert times.logit_normal(jax.random.key(0), 100, mean=1.0).mean() > 0.6


@pytest.mark.parametrize("probabilities", [None, (0.5, 0.0, 0.3, 0.2)])
def test_discrete(probabilities):
    grid = jnp.asarray([0.1, 0.2, 5.0, 80.0])
    t = np.asarray(
        times.discrete(
            jax.random.key(1), N, grid=grid, probabilities=None if probabilities is None else jnp.asarray(probabilities)
        )
    )
    for value, p in zip(np.asarray(grid), probabilities or [0.25] * 4, strict=True):
        assert abs((t == value).mean() - p) <= 4 * np.sqrt(p * (1 - p) / N)
    assert np.isin(t, np.asarray(grid)).all()


def test_std_zero_is_one_noise_level():
    np.testing.assert_allclose(times.lognormal(jax.random.key(0), 5, mean=0.3, std=0.0), np.exp(0.3), rtol=1e-6)


def test_trig_lognormal_golden():
    """Angles of ln sigma = -3, -1, 0, 2 at sigma_data 0.5."""
    for mean, golden in {-3: 0.09925, -1: 0.63432, 0: 1.10715, 2: 1.50323}.items():
        angle = times.trig_lognormal(jax.random.key(0), 3, mean=float(mean), std=0.0)
        np.testing.assert_allclose(angle, golden, atol=6e-6)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_trig_lognormal_rejects(sigma_data):
    with pytest.raises(ValueError, match=f"sigma_data must be positive, got {sigma_data}"):
        times.trig_lognormal(jax.random.key(0), 2, sigma_data=sigma_data)


def test_a_key_fixes_the_draw():
    for law, _ in EXACT.values():
        a, b, c = law(jax.random.key(0), 9), law(jax.random.key(0), 9), law(jax.random.key(1), 9)
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.5, 0.1), (-0.1, 1.0), (float("nan"), 1.0)])
def test_uniform_rejects(low, high):
    with pytest.raises(ValueError, match=f"0 <= low < high, got low={low}, high={high}"):
        times.uniform(jax.random.key(0), 2, low=low, high=high)


@pytest.mark.parametrize("law", [times.lognormal, times.trig_lognormal, times.logit_normal])
@pytest.mark.parametrize("std", [-1.0, float("nan")])
def test_normal_laws_reject(law, std):
    with pytest.raises(ValueError, match=f"std >= 0, got {std}"):
        law(jax.random.key(0), 2, mean=0.0, std=std)


@pytest.mark.parametrize("shape", [(0,), (2, 2), ()])
def test_discrete_rejects(shape):
    with pytest.raises(ValueError, match="one-dimensional and not empty, got shape"):
        times.discrete(jax.random.key(0), 2, grid=jnp.ones(shape))


def test_ctm_denoising_times_are_of_two_kinds():
    """Every other one EDM's, every other one uniform in t^(1/7) from 80 down to 0.3183."""
    t = np.asarray(times.ctm(jax.random.key(3), 2 * N))
    shares = (t[::2, None] < np.exp(-1.2 + 1.2 * NORMAL)).mean(axis=0)
    np.testing.assert_array_less(np.abs(shares - LEVELS), 4 * np.sqrt(LEVELS * (1 - LEVELS) / N))
    high = t[1::2] ** (1 / 7)
    ends = np.asarray([0.3183, 80.0]) ** (1 / 7)
    np.testing.assert_allclose([high.min(), high.max()], ends, rtol=2e-4)
    u = (high - ends[0]) / (ends[1] - ends[0])
    np.testing.assert_array_less(np.abs((u[:, None] < LEVELS).mean(axis=0) - LEVELS), 4 * np.sqrt(0.25 / N))


# ---- Laws that are symmetric in [0, 1], and moved ones ---------------------------------------------------------------

SYMMETRIC: dict[str, Times] = {
    name: EXACT[name][0] for name in ("mode", "mode, of the ends", "cosmap", "U-shaped", "logit-normal")
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_laws(name):
    t = np.asarray(SYMMETRIC[name](jax.random.key(5), N))
    assert ((t >= 0) & (t <= 1)).all()
    assert abs(t.mean() - 0.5) < 4 * t.std() / np.sqrt(N)
    below, above = (t < 0.1).mean(), (t > 0.9).mean()
    assert abs(below - above) < 4 * np.sqrt((below + above) / N)


def test_mode_is_uniform_at_scale_zero_and_reaches_both_ends():
    u = jax.random.uniform(jax.random.key(0), (9,))
    np.testing.assert_allclose(times.mode(jax.random.key(0), 9, scale=0.0), 1 - u, rtol=1e-6)
    for scale in (-1.0, 1.29, 2 / (np.pi - 2)):
        t = np.sort(np.asarray(times.mode(jax.random.key(1), N, scale=scale)))
        assert t[0] < 1e-3
        assert t[-1] > 1 - 1e-3


@pytest.mark.parametrize("scale", [-1.01, 1.76, float("nan")])
def test_mode_rejects_what_is_not_monotone(scale):
    with pytest.raises(ValueError, match=rf"-1 <= scale <= 1\.7519, got {scale}"):
        times.mode(jax.random.key(0), 2, scale=scale)


@pytest.mark.usefixtures("float64")
def test_cosmap_is_the_cosine_path_read_on_the_straight_one():
    """Uniform times on one and these on the other have the same ratio of noise to data."""
    u, t = jax.random.uniform(jax.random.key(0), (64,)), times.cosmap(jax.random.key(0), 64)
    np.testing.assert_allclose(t / (1 - t), paths.cosine.sigma(u) / paths.cosine.alpha(u), rtol=1e-10)


def test_u_shaped_deciles():
    """Of the density (e^(4 t) + e^(4 (1 - t))) 2 / (e^4 - 1), and of a histogram of the published code's draws."""
    t = np.asarray(times.u_shaped(jax.random.key(2), N))
    assert t.min() >= 1e-5
    assert t.max() <= 1 - 9e-6
    edges = np.linspace(0, 1, 11)
    exact = 10 * np.diff(np.exp(4 * edges) - np.exp(4 * (1 - edges))) / (2 * (np.exp(4) - 1))
    np.testing.assert_allclose(exact, [1.71, 1.19, 0.85, 0.65, 0.56, 0.56, 0.65, 0.85, 1.19, 1.71], atol=0.02)
    got = 10 * np.histogram(t, bins=edges)[0] / N
    np.testing.assert_array_less(np.abs(got - exact), 4 * np.sqrt(10 * exact / N))


@pytest.mark.parametrize(("a", "margin"), [(0.0, 0.0), (-1.0, 0.0), (4.0, 0.5), (4.0, -0.1), (float("nan"), 0.0)])
def test_u_shaped_rejects(a, margin):
    with pytest.raises(ValueError, match=f"a > 0 and 0 <= margin < 0.5, got a={a}, margin={margin}"):
        times.u_shaped(jax.random.key(0), 2, a=a, margin=margin)


@pytest.mark.usefixtures("float64")
def test_shifts_compose_and_move_the_mean_of_a_logit_normal():
    key, law = jax.random.key(0), partial(times.logit_normal, mean=-0.4)
    once = times.shifted(law, factor=6.0)(key, 64)
    twice = times.shifted(times.shifted(law, factor=3.0), factor=2.0)(key, 64)
    np.testing.assert_allclose(twice, once, rtol=1e-12)
    np.testing.assert_allclose(once, times.logit_normal(key, 64, mean=-0.4 + np.log(6)), rtol=1e-12)
    np.testing.assert_array_equal(times.shifted(law, factor=1.0)(key, 64), law(key, 64))
    ends = times.shifted(partial(times.discrete, grid=jnp.asarray([0.0, 1.0])), factor=3.0)(key, 64)
    assert set(np.asarray(ends)) == {0.0, 1.0}


@pytest.mark.parametrize("factor", [0.0, -2.0, float("inf"), float("nan")])
def test_a_shift_rejects(factor):
    with pytest.raises(ValueError, match=f"positive factor, got {factor}"):
        times.shifted(times.uniform, factor=factor)
