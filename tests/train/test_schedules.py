import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train import schedules


def test_warmup_constant_rises_in_its_steps_and_without_any_is_there_at_once():
    rate = schedules.warmup_constant(2.0, steps=4)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 4, 100)], [0, 0.5, 2, 2])
    assert [schedules.warmup_constant(2.0, steps=0)(step) for step in (0, 100)] == [2, 2]
    with pytest.raises(ValueError, match="got -1"):
        schedules.warmup_constant(2.0, steps=-1)


def test_edm_ramp_starts_at_zero_and_ends_after_its_images():
    rate = schedules.edm_ramp(1e-3, ramp_images=10e6, batch_size=512)
    assert rate(0) == 0
    assert rate(9765) == pytest.approx(1e-3 * 9765 * 512 / 10e6, rel=1e-6)
    assert rate(19532) == pytest.approx(1e-3)
    assert rate(10**6) == pytest.approx(1e-3)


@pytest.mark.parametrize(("images", "rate"), [(5e6, 0.005), (10e6, 0.01), (71.68e6, 0.01), (1e9, 0.002677)])
def test_edm2_inverse_sqrt_meets_the_published_values(images, rate):
    # lr_ref = 0.01, t_ref = 35k, batch 2048.
    schedule = schedules.edm2_inverse_sqrt(0.01, reference_steps=35_000, ramp_images=10e6, batch_size=2048)
    assert schedule(images / 2048) == pytest.approx(rate, rel=1e-3)


def test_warmup_stable_decay_has_three_straight_parts():
    schedule = schedules.warmup_stable_decay(2.0, steps=100, warmup_steps=10, decay_steps=20)
    steps = np.array([0, 5, 10, 50, 80, 90, 100, 200])
    np.testing.assert_allclose([schedule(s) for s in steps], [0, 1, 2, 2, 2, 1, 0, 0], atol=1e-6)


def test_rex_keeps_more_than_linear_and_ends_at_zero():
    schedule = schedules.rex(1.0, steps=100)
    assert schedule(0) == 1
    assert schedule(50) == pytest.approx(0.5 / 0.75)
    assert schedule(100) == 0
    assert schedule(1000) == 0


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.edm_ramp(1e-3, ramp_images=100.0, batch_size=10),
        schedules.edm2_inverse_sqrt(1e-2, reference_steps=10, ramp_images=100.0, batch_size=10),
        schedules.warmup_stable_decay(1e-3, steps=30, warmup_steps=5, decay_steps=5),
        schedules.rex(1e-3, steps=30),
        optax.cosine_onecycle_schedule(30, 1e-3),
    ],
)
def test_schedules_drive_an_optax_optimizer(schedule):
    optimizer = optax.sgd(schedule)
    state, x = optimizer.init(jnp.float32(1.0)), jnp.float32(1.0)
    expected = 1.0
    for step in range(4):
        update, state = optimizer.update(jnp.float32(1.0), state)
        x = optax.apply_updates(x, update)
        expected -= float(schedule(step))
    assert x == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.edm_ramp(1e-3, ramp_images=0, batch_size=1),
        lambda: schedules.warmup_stable_decay(1.0, steps=10, warmup_steps=6, decay_steps=6),
        lambda: schedules.rex(1.0, steps=0),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ValueError, match=r"got|fit"):
        make()
