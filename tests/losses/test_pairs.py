from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf

from losses import edm_weight, pairs

N = 60_000
LEVELS_11 = [0.002, 0.016721, 0.085087, 0.318283, 0.965417, 2.515219, 5.838948, 12.381576, 24.408342, 45.313734, 80.0]
"""Karras grid of 11 levels from 0.002 to 80 with rho 7."""
ICT_11 = [0.06263, 0.18174, 0.24550, 0.21349, 0.14245, 0.08060, 0.04108, 0.01958, 0.00894, 0.00398]
"""Probability of each interval under iCT's law, mean -1.1 and std 2."""
ICT_WEIGHTS_11 = [67.931, 14.627, 4.2882, 1.5453, 0.6452, 0.3009, 0.1528, 0.0831, 0.0478, 0.0288]


def intervals(t: jax.Array) -> np.ndarray:
    """Index of the interval of the 11-level grid that ends at t."""
    return np.abs(np.asarray(t)[:, None] - np.asarray(LEVELS_11)).argmin(axis=1) - 1


@pytest.mark.usefixtures("float64")
def test_karras_time_golden():
    i = jnp.arange(11)
    grid = pairs.karras_time(i, jnp.asarray(11), sigma_min=0.002, sigma_max=80.0, rho=7.0)
    np.testing.assert_allclose(grid, LEVELS_11, rtol=5e-5)
    # The two-step levels iCT published, 0.821 and 1.526, are points 492 and 571 of the finest grid.
    finest = pairs.karras_time(jnp.asarray([492, 571]), jnp.asarray(1281), sigma_min=0.002, sigma_max=80.0, rho=7.0)
    np.testing.assert_allclose(finest, [0.820867, 1.525766], rtol=1e-6)


@pytest.mark.parametrize("law", [pairs.ct, pairs.ict])
def test_grid_pairs_are_neighbours(law):
    t, s, weight = law(jax.random.key(0), 4096, points=jnp.asarray(11))
    for value, offset in ((t, 1), (s, 0)):
        np.testing.assert_allclose(value, np.asarray(LEVELS_11)[intervals(t) + offset], rtol=5e-5)
    assert (s < t).all()
    assert t.shape == s.shape == weight.shape == (4096,)


def test_ct_visits_every_interval_equally():
    t, _, weight = pairs.ct(jax.random.key(0), N, points=jnp.asarray(11))
    shares = np.bincount(intervals(t), minlength=10) / N
    np.testing.assert_array_less(np.abs(shares - 0.1), 4 * np.sqrt(0.09 / N))
    np.testing.assert_array_equal(weight, 1)


def test_ct_with_two_points_is_the_whole_range():
    """The first step of CT's curriculum."""
    t, s, _ = pairs.ct(jax.random.key(0), 16, points=jnp.asarray(2))
    np.testing.assert_allclose(t, 80, rtol=1e-6)
    np.testing.assert_allclose(s, 0.002, rtol=1e-5)


def test_ict_golden_probabilities_and_weights():
    t, s, weight = pairs.ict(jax.random.key(1), N, points=jnp.asarray(11))
    index = intervals(t)
    shares = np.bincount(index, minlength=10) / N
    p = np.asarray(ICT_11)
    np.testing.assert_array_less(np.abs(shares - p), 4 * np.sqrt(p * (1 - p) / N))
    np.testing.assert_allclose(weight, np.asarray(ICT_WEIGHTS_11)[index], rtol=2e-3)
    np.testing.assert_allclose(weight, 1 / (t - s), rtol=1e-6)


def test_ict_golden_probabilities_are_erf_differences():
    """Eq. 10 itself, so that the table above is not the only witness; its normaliser is the mass 0.991663."""
    edges = np.asarray(erf((np.log(LEVELS_11) + 1.1) / (np.sqrt(2) * 2.0)))
    np.testing.assert_allclose(np.diff(edges) / (edges[-1] - edges[0]), ICT_11, atol=1e-5)
    np.testing.assert_allclose((edges[-1] - edges[0]) / 2, 0.991663, atol=1e-6)


@pytest.mark.parametrize("points", [2, 1281])
def test_ict_is_truncated_to_the_grid(points):
    t, s, weight = pairs.ict(jax.random.key(2), N, points=jnp.asarray(points))
    assert s.min() >= 0.002 * (1 - 1e-5)
    assert t.max() <= 80 * (1 + 1e-5)
    assert (s < t).all()
    assert jnp.isfinite(weight).all()


@pytest.mark.parametrize("points", [2, 11, 1281])
def test_ict_draws_at_the_very_edges_stay_on_the_grid(monkeypatch, points):
    """Rounding puts the highest draw on the last point, or past it, and the lowest before the first."""

    def edges(key, shape, minval, maxval):
        return jnp.stack([minval * (1 + 1e-6), maxval * (1 + 1e-6)])

    monkeypatch.setattr(jax.random, "uniform", edges)
    t, s, _ = pairs.ict(jax.random.key(0), 2, points=points)
    np.testing.assert_allclose([s[0], t[1]], [0.002, 80], rtol=1e-5)
    assert (s < t).all()


@pytest.mark.parametrize("law", [pairs.ct, pairs.ict])
def test_fixed_numbers_of_points_may_be_plain_integers(law):
    """As in consistency distillation, whose grid has 18 levels throughout."""
    for a, b in zip(
        law(jax.random.key(0), 8, points=18), law(jax.random.key(0), 8, points=jnp.asarray(18)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_one_program_for_all_stages():
    traces = []

    @jax.jit
    def draw(key, points, stage):
        traces.append(points)
        law = partial(pairs.ict, points=points)
        return law(key, 8), pairs.ct(key, 8, points=points), pairs.ect(key, 8, stage=stage)

    for points, stage in ((11, 0), (21, 1), (1281, 7)):
        draw(jax.random.key(0), jnp.asarray(points), jnp.asarray(stage))
    assert len(traces) == 1


@pytest.mark.usefixtures("float64")
def test_ect_golden():
    """q = 2, stage 7, the last of CIFAR-10's eight stages."""
    t = jnp.asarray([0.002, 0.1, 1.0, 5.0, 80.0])
    s, hop = pairs.ect_hop(t, stage=jnp.asarray(7))
    np.testing.assert_allclose(s, [0.00196097, 0.0981249, 0.9876893, 4.9794230, 79.6875], rtol=2e-6)
    np.testing.assert_allclose(s + hop, t, rtol=1e-15)


def test_ect_starts_with_denoising_pairs_up_to_ln_7():
    """1 + 8 sigmoid(-t) >= 2 exactly when exp(t) <= 7."""
    edge = np.float32(np.log(7))
    t = jnp.asarray([1e-4, 0.5, edge * (1 - 1e-6), edge * (1 + 1e-5), 2.0, 80.0])
    s, hop = pairs.ect_hop(t, stage=jnp.asarray(0))
    np.testing.assert_array_equal(s[:3], 0)
    assert (s[3:] > 0).all()
    assert (hop > 0).all()


def test_ect_hop_has_no_cancellation():
    """In float32 the stored hop is exact to rounding where the difference of the stored times is not."""
    t = jnp.geomspace(1e-3, 80, 200)
    s, hop = pairs.ect_hop(t, stage=jnp.asarray(15))
    t64 = np.asarray(t, np.float64)
    exact = t64 * (1 + 8 / (1 + np.exp(t64))) / 2**16
    np.testing.assert_allclose(hop, exact, rtol=5e-7)
    assert np.abs((t - s) / exact - 1).max() > 1e-4
    _, _, weight = pairs.ect(jax.random.key(0), 1000, stage=jnp.asarray(15))
    times, _, _ = pairs.ect(jax.random.key(0), 1000, stage=jnp.asarray(15))
    drawn = np.asarray(times, np.float64)
    np.testing.assert_allclose(weight * drawn * (1 + 8 / (1 + np.exp(drawn))) / 2**16, 1, rtol=1e-6)


@pytest.mark.parametrize("stage", [0, 3, 7, 15])
def test_ect_second_time_is_below_the_first(stage):
    t, s, weight = pairs.ect(jax.random.key(0), N, stage=jnp.asarray(stage))
    assert (s < t).all()
    assert (s >= 0).all()
    assert jnp.isfinite(weight).all()
    assert ((s == 0).mean() > 0.5) == (stage == 0)


def test_ect_weight_may_be_a_function_of_t():
    """As on ImageNet, whose runs weigh by 1 / c_out^2; t and s stay the same draws."""
    t, s, weight = pairs.ect(jax.random.key(0), 64, stage=3, weight=edm_weight)
    np.testing.assert_allclose(weight, edm_weight(t), rtol=1e-6)
    np.testing.assert_array_equal((t, s), pairs.ect(jax.random.key(0), 64, stage=3)[:2])


def test_ect_times_are_the_untruncated_lognormal():
    log_t = np.log(pairs.ect(jax.random.key(0), N, stage=jnp.asarray(0))[0])
    assert abs(log_t.mean() + 1.1) < 4 * 2 / np.sqrt(N)
    assert abs(log_t.std() - 2) < 4 * 2 / np.sqrt(2 * N)
    # 0.31 % lie above 80, where iCT's law ends.
    assert abs((log_t > np.log(80)).mean() - 0.0031) < 4 * np.sqrt(0.0031 / N)


def test_ordered_pairs():
    """Uniform where s <= t, so that t^2 and the share s / t are uniform; and the shares at data and at t."""
    t, s, weight = jax.jit(lambda key: pairs.ordered(key, N))(jax.random.key(0))
    assert (s <= t).all()
    np.testing.assert_array_equal(weight, 1)
    for uniform in (t**2, s / t):
        assert abs(uniform.mean() - 0.5) < 4 / np.sqrt(12 * N)
    t, s, _ = jax.jit(lambda key: pairs.ordered(key, N, to_data=0.3, same=0.1))(jax.random.key(0))
    assert abs((s == 0).mean() - 0.3) < 4 * np.sqrt(0.21 / N)
    assert abs((s == t).mean() - 0.1) < 4 * np.sqrt(0.09 / N)


@pytest.mark.parametrize("shares", [{"to_data": -0.1}, {"same": -0.1}, {"to_data": 0.6, "same": 0.6}])
def test_ordered_rejects(shares):
    with pytest.raises(ValueError, match="together at most 1"):
        pairs.ordered(jax.random.key(0), 4, **shares)


def test_whole_karras_grid():
    grid = pairs.karras_grid(11)
    np.testing.assert_allclose(grid, LEVELS_11, rtol=5e-5)
    assert grid.dtype == np.float64
    assert (grid[0], grid[-1]) == (0.002, 80.0)
    golden = [80, 69.451, 60.117, 16.780, 2.2404, 0.13120, 0.0036766, 0.002]
    np.testing.assert_allclose(pairs.karras_grid(40)[::-1][[0, 1, 2, 10, 20, 30, 38, 39]], golden, rtol=3e-5)


@pytest.mark.parametrize("numbers", [(1, 0.002, 80.0), (9, 0.0, 80.0), (9, 2.0, 1.0), (9, 0.002, float("nan"))])
def test_karras_grid_rejects(numbers):
    points, low, high = numbers
    with pytest.raises(ValueError, match=f"got points={points}, sigma_min={low}, sigma_max={high}"):
        pairs.karras_grid(points, sigma_min=low, sigma_max=high)


def test_ddim_grid_golden():
    np.testing.assert_array_equal(pairs.ddim_grid(50), [0, *range(19, 1000, 20)])
    np.testing.assert_array_equal(pairs.ddim_grid(40)[[0, 1, -1]], [0, 24, 999])
    np.testing.assert_array_equal(pairs.ddim_grid(200)[[0, 1, 2, -1]], [0, 4, 9, 999])
    np.testing.assert_array_equal(pairs.ddim_grid(2, steps=10), [0, 4, 9])


@pytest.mark.parametrize("solver_steps", [0, -5, 30, 1000])
def test_ddim_grid_rejects(solver_steps):
    """1000 of 1000 would have a first step from timestep 0 to itself."""
    with pytest.raises(ValueError, match=f"must divide 1000 and be less, got {solver_steps}"):
        pairs.ddim_grid(solver_steps)


def test_lcm_skips_one_step_of_the_solver():
    """J ~ U{0, ..., 49}: t = 20 j + 19 and s = max(t - 20, 0)."""
    t, s, weight = pairs.lcm(jax.random.key(0), N, grid=pairs.ddim_grid(50))
    np.testing.assert_array_equal(s, np.maximum(t - 20, 0))
    shares = np.bincount((np.asarray(t, int) - 19) // 20, minlength=50) / N
    np.testing.assert_array_less(np.abs(shares - 0.02), 4 * np.sqrt(0.02 / N))
    np.testing.assert_array_equal(weight, 1)


# ---- MeanFlow --------------------------------------------------------------------------------------------------------


def logit(t):
    return np.log(t) - np.log1p(-t)


def test_sorted_logit_normal_is_two_draws_in_order():
    """Larger and smaller of two: means mean +- std / sqrt(pi), and together the law itself."""
    t, s, weight = jax.jit(lambda key: pairs.sorted_logit_normal(key, 40_000, mean=-0.4, std=1.0))(jax.random.key(0))
    assert (s < t).all()
    assert (weight == 1).all()
    large, small = logit(np.asarray(t, np.float64)), logit(np.asarray(s, np.float64))
    for draws, expected in ((large, -0.4 + np.pi**-0.5), (small, -0.4 - np.pi**-0.5)):
        assert abs(draws.mean() - expected) < 4 / np.sqrt(40_000)
    both = np.concatenate([large, small])
    assert abs(both.mean() + 0.4) < 4 / np.sqrt(80_000)
    assert abs(both.std() - 1) < 4 / np.sqrt(2 * 80_000)


def test_capped_logit_normal_keeps_t_and_caps_s():
    """P(logit s >= logit t) = Phi((mean_s - mean) / sqrt(std^2 + std_s^2)) of the pairs have s = t."""
    t, s, _ = jax.jit(lambda key: pairs.capped_logit_normal(key, 40_000))(jax.random.key(0))
    assert (s <= t).all()
    draws = logit(np.asarray(t, np.float64))
    assert abs(draws.mean() + 0.6) < 4 * 1.6 / np.sqrt(40_000)
    assert abs(draws.std() - 1.6) < 4 * 1.6 / np.sqrt(2 * 40_000)
    share = float(jax.scipy.stats.norm.cdf(-3.4 / np.sqrt(2 * 1.6**2)))
    assert abs((s == t).mean() - share) < 4 * np.sqrt(share / 40_000)


@pytest.mark.parametrize("q", [1.0, 0.5, float("nan")])
def test_a_mapping_that_never_comes_closer_is_refused(q):
    with pytest.raises(ValueError, match=f"ect needs q > 1, got q={q}"):
        pairs.ect(jax.random.key(0), 4, stage=3, q=q)
