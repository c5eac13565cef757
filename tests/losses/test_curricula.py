"""Curricula against arithmetic in Python's integers, at every step where they could change."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import cauchy, curricula, pairs


def each(curriculum, steps):
    """The curriculum at many steps, through one trace."""
    return np.asarray(jax.jit(jax.vmap(curriculum))(jnp.asarray(steps)))


def ct_reference(k: int, steps: int, s0: int, s1: int) -> int:
    """Ceil(sqrt(k/K ((s1+1)^2 - s0^2) + s0^2) - 1) + 1 is the smallest integer whose square reaches the radicand."""
    radicand = Fraction(k, steps) * ((s1 + 1) ** 2 - s0**2) + s0**2
    root = math.isqrt(math.floor(radicand))
    return root if root * root == radicand else root + 1


CT = {"cifar10": (800_000, 2, 150), "imagenet64": (800_000, 2, 200), "short": (1000, 2, 150), "prime": (997, 3, 17)}


@pytest.mark.parametrize("name", CT)
def test_ct_points_at_every_boundary(name):
    steps, s0, s1 = CT[name]
    candidates = {0, steps - 1, steps}
    for m in range(s0, s1 + 2):
        boundary = Fraction(steps * (m**2 - s0**2), (s1 + 1) ** 2 - s0**2)
        candidates |= {math.floor(boundary) + offset for offset in (-1, 0, 1, 2)}
    k = sorted(c for c in candidates if 0 <= c <= steps)
    got = each(lambda step: curricula.ct_points(step, steps=steps, s0=s0, s1=s1), k)
    assert got.tolist() == [ct_reference(step, steps, s0, s1) for step in k]
    assert got[0] == s0
    assert got[-1] == s1 + 1


@pytest.mark.parametrize(
    ("s1", "mu0", "golden"),
    [
        (
            150,
            0.9,
            {0: (2, 0.81), 1: (3, 0.9), 1000: (6, 0.958732), 400_000: (107, 0.998014), 799_999: (151, 0.998596)},
        ),
        (200, 0.95, {0: (2, 0.9025), 1000: (8, 0.985452), 400_000: (143, 0.999278), 800_000: (201, 0.999487)}),
    ],
)
def test_ct_golden(s1, mu0, golden):
    points = each(lambda step: curricula.ct_points(step, steps=800_000, s1=s1), list(golden))
    decay = jax.vmap(lambda n: curricula.ct_target_decay(n, mu0=mu0))(jnp.asarray(points))
    assert points.tolist() == [n for n, _ in golden.values()]
    np.testing.assert_allclose(decay, [mu for _, mu in golden.values()], atol=6e-7)
    assert decay.dtype == jnp.float32


def ict_reference(k: int, steps: int, s0: int, s1: int) -> int:
    stage_steps = math.floor(steps / (math.log2(s1 // s0) + 1))
    return min(s0 * 2 ** (k // stage_steps), s1) + 1


def test_ict_stages():
    k = [stage * 50_000 for stage in range(8)]
    got = each(lambda step: curricula.ict_points(step, steps=400_000), k)
    assert got.tolist() == [11, 21, 41, 81, 161, 321, 641, 1281]


@pytest.mark.parametrize(
    ("steps", "s0", "s1"), [(400_000, 10, 1280), (800_000, 10, 1280), (1003, 10, 640), (77, 3, 50)]
)
def test_ict_points_at_every_boundary(steps, s0, s1):
    stage_steps = math.floor(steps / (math.log2(s1 // s0) + 1))
    k = sorted({max(0, stage * stage_steps + o) for stage in range(12) for o in (-1, 0, 1)} | {10 * steps})
    got = each(lambda step: curricula.ict_points(step, steps=steps, s0=s0, s1=s1), k)
    assert got.tolist() == [ict_reference(step, steps, s0, s1) for step in k]


LATENT_STAGES = [11, 21, 41, 81, 161, 321, 641]


def test_cauchy_scale_golden():
    """The authors' c on latents of 32 x 32 x 4, whose distance has a mean where ours has a sum."""
    elements = 4096
    c = each(lambda points: curricula.cauchy_scale(points, elements=elements), LATENT_STAGES)
    theirs = np.asarray(c, float) / np.sqrt(elements)
    golden = [0.03456, 0.013635, 0.0061444, 0.0027688, 0.0012477, 5.6225e-4, 2.5336e-4]
    np.testing.assert_allclose(theirs, golden, rtol=4e-5)  # half of the fifth digit
    assert c.dtype == np.float32

    a = np.random.default_rng(0).normal(0, 0.01, (3, elements)).astype(np.float32)
    mean = np.mean(a.astype(float) ** 2, axis=1)
    for ours, published in zip(c, theirs, strict=True):
        exact = np.log(mean / 2 + published**2) - 2 * np.log(published)
        np.testing.assert_allclose(cauchy(jnp.asarray(a), jnp.zeros((3, elements)), c=float(ours)), exact, rtol=1e-5)


def test_cauchy_scale_of_an_element_does_not_depend_on_how_many_there_are():
    """And it falls from every stage to the next; the authors' 0.00054 sqrt(64) would rise from the first."""
    c = {d: each(lambda points, d=d: curricula.cauchy_scale(points, elements=d), LATENT_STAGES) for d in (64, 4096)}
    np.testing.assert_allclose(c[64] * 8, c[4096], rtol=1e-6)
    assert (np.diff(c[64]) < 0).all()


def test_small_noise_is_the_last_quarter_of_the_authors_grid():
    """The grid in float32 on the device, from sigma_max down as in the authors' code, which truncates 0.75 N."""

    @jax.jit
    def selected(points):
        rising = points - 1 - jnp.arange(1281)
        t = pairs.karras_time(rising, points, sigma_min=0.002, sigma_max=80.0, rho=7.0)
        return t < curricula.small_noise(points)

    for points in (2, 3, 4, *LATENT_STAGES, 1281):
        got = selected(jnp.asarray(points))[:points]
        np.testing.assert_array_equal(got, np.arange(points) >= int(points * 0.75))


def test_ect_stage_at_every_boundary():
    k = [0, 1, 24_999, 25_000, 25_001, 49_999, 50_000, 174_999, 175_000, 199_999, 200_000, 10**9]
    got = each(lambda step: curricula.ect_stage(step, stage_steps=25_000, last=7), k)
    assert got.tolist() == [min(step // 25_000, 7) for step in k]


@pytest.mark.parametrize(
    ("segments", "golden"),
    [(1, [64, 286, 1280, 1280]), (2, [32, 143, 640, 640]), (4, [16, 72, 320, 320]), (8, [8, 36, 160, 160])],
)
def test_multistep_intervals_golden(segments, golden):
    """N = 64, sqrt(64 1280) = 286.2 and 1280 at the start, the middle and the end of 100k steps, and after it."""
    steps = [0, 50_000, 100_000, 10**9]
    got = each(lambda step: curricula.multistep_intervals(step, segments=segments, ramp_steps=100_000), steps)
    assert got.tolist() == golden
    assert got.dtype == np.int32


@pytest.mark.parametrize(
    ("segments", "first", "last"), [(1, 64, 1280), (3, 64, 1280), (8, 64, 1280), (16, 4, 100), (256, 64, 1280)]
)
def test_multistep_intervals_at_every_step(segments, first, last):
    """round(N / segments), at least 1, of N in float64; 256 segments start with a quarter of an interval each."""
    ramp_steps = 1000
    steps = np.arange(ramp_steps + 10)
    share = np.minimum(steps / ramp_steps, 1)
    exact = np.exp(np.log(first) + share * np.log(last / first)) / segments
    # The last value is an integer or half of one, and N just below it in float64 is rounding.
    exact[ramp_steps:] = last / segments
    got = each(
        lambda step: curricula.multistep_intervals(
            step, segments=segments, ramp_steps=ramp_steps, first=first, last=last
        ),
        steps,
    )
    assert got.tolist() == np.maximum(np.rint(exact), 1).astype(int).tolist()
    assert (np.diff(got) >= 0).all()


def test_multistep_intervals_that_never_grow():
    got = each(lambda k: curricula.multistep_intervals(k, segments=64, ramp_steps=10, first=64, last=70), [0, 5, 20])
    assert got.tolist() == [1, 1, 1]


def test_tangent_warmup():
    got = each(lambda step: curricula.tangent_warmup(step, steps=10_000), [0, 1, 5000, 10_000, 10**9])
    np.testing.assert_allclose(got, [0, 1e-4, 0.5, 1, 1], rtol=1e-6)
    assert got.dtype == np.float32


def test_one_program_for_the_whole_run():
    traces = []

    @jax.jit
    def at(step):
        traces.append(step)
        return (
            curricula.ct_points(step, steps=1000),
            curricula.ict_points(step, steps=1000),
            curricula.ect_stage(step, stage_steps=100, last=7),
            curricula.ct_target_decay(curricula.ct_points(step, steps=1000)),
            curricula.multistep_intervals(step, segments=4, ramp_steps=1000),
            curricula.tangent_warmup(step, steps=1000),
            curricula.cauchy_scale(curricula.ict_points(step, steps=1000), elements=16),
            curricula.small_noise(curricula.ict_points(step, steps=1000)),
        )

    results = [at(jnp.asarray(step)) for step in (0, 1, 500, 999, 5000)]
    assert len(traces) == 1
    assert len({int(result[1]) for result in results}) == 3
    assert len({int(result[4]) for result in results}) == 4
    assert all(value.shape == () for result in results for value in result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: curricula.ct_points(k, steps=0), "steps=0"),
        (lambda k: curricula.ct_points(k, steps=10, s0=1), "s0=1"),
        (lambda k: curricula.ct_points(k, steps=10, s0=5, s1=4), "s0=5, s1=4"),
        (lambda k: curricula.ct_target_decay(k, mu0=1.2), r"0 < mu0 < 1 and s0 >= 1, got mu0=1\.2"),
        (lambda k: curricula.ct_target_decay(k, s0=0), "s0=0"),
        (lambda k: curricula.ict_points(k, steps=10, s0=0), "s0=0"),
        (lambda k: curricula.ict_points(k, steps=10, s0=20, s1=10), "s0=20, s1=10"),
        (lambda k: curricula.ict_points(k, steps=7), "7 steps are too few for 8 stages"),
        (lambda k: curricula.ect_stage(k, stage_steps=0, last=7), "got 0 and 7"),
        (lambda k: curricula.ect_stage(k, stage_steps=5, last=-1), "got 5 and -1"),
        (lambda k: curricula.multistep_intervals(k, segments=0, ramp_steps=10), "segments=0"),
        (lambda k: curricula.multistep_intervals(k, segments=2, ramp_steps=0), "ramp_steps=0"),
        (lambda k: curricula.multistep_intervals(k, segments=2, ramp_steps=5, first=0), "first=0, last=1280"),
        (lambda k: curricula.multistep_intervals(k, segments=2, ramp_steps=5, first=9, last=9), "first=9, last=9"),
        (lambda k: curricula.tangent_warmup(k, steps=0), "got 0"),
        (lambda k: curricula.cauchy_scale(k, elements=0), "elements >= 1, got 0"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.asarray(0))
