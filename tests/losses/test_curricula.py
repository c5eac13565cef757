"""Curricula against arithmetic in Python's integers, at every step where they could change."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import curricula


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


def test_ect_stage_at_every_boundary():
    k = [0, 1, 24_999, 25_000, 25_001, 49_999, 50_000, 174_999, 175_000, 199_999, 200_000, 10**9]
    got = each(lambda step: curricula.ect_stage(step, stage_steps=25_000, last=7), k)
    assert got.tolist() == [min(step // 25_000, 7) for step in k]


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
        )

    results = [at(jnp.asarray(step)) for step in (0, 1, 500, 999, 5000)]
    assert len(traces) == 1
    assert len({int(result[1]) for result in results}) == 3
    assert all(value.shape == () for result in results for value in result)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: curricula.ct_points(k, steps=0), "steps=0"),
        (lambda k: curricula.ct_points(k, steps=10, s0=1), "s0=1"),
        (lambda k: curricula.ct_points(k, steps=10, s0=5, s1=4), "s0=5, s1=4"),
        (lambda k: curricula.ict_points(k, steps=10, s0=0), "s0=0"),
        (lambda k: curricula.ict_points(k, steps=10, s0=20, s1=10), "s0=20, s1=10"),
        (lambda k: curricula.ict_points(k, steps=7), "7 steps are too few for 8 stages"),
        (lambda k: curricula.ect_stage(k, stage_steps=0, last=7), "got 0 and 7"),
        (lambda k: curricula.ect_stage(k, stage_steps=5, last=-1), "got 5 and -1"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.asarray(0))
