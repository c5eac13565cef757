from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import averages
from train.posthoc import Profile, gamma_of, mixing_weights


def trajectory(decay, values):
    """The average after each of a sequence of parameter values, starting from an unrelated one."""

    def step(average, inputs):
        k, value = inputs
        new = averages.update({"it": average}, {"it": decay}, value, k)["it"]
        return new, new

    return jax.lax.scan(step, jnp.asarray(123.0), (jnp.arange(len(values)), values))[1]


def test_power_average_of_a_power_of_time_meets_its_closed_form():
    # (gamma + 1)/(gamma + 1 + k) T^k in continuous time; 4096 steps leave a discretisation error of order 1/T.
    steps = 4096
    with jax.enable_x64(True):
        tau = jnp.arange(1, steps + 1) / steps
        for sigma_rel in (0.05, 0.10):
            gamma = gamma_of(sigma_rel)
            for k in (1, 2, 3):
                average = trajectory(partial(averages.power, sigma_rel=sigma_rel), tau**k)[-1]
                assert average == pytest.approx((gamma + 1) / (gamma + 1 + k), rel=(gamma + 2) * k / steps / 2)
        discrete = trajectory(partial(averages.power, sigma_rel=0.05), tau**2)[-1]
        assert discrete == pytest.approx(0.90009, abs=5e-6)


def test_post_hoc_reconstruction_from_real_averages_meets_its_closed_form():
    steps, count = 4096, 16
    with jax.enable_x64(True):
        tau = jnp.arange(1, steps + 1) / steps
        curves = {s: np.asarray(trajectory(partial(averages.power, sigma_rel=s), tau**2)) for s in (0.05, 0.10)}
        direct = trajectory(partial(averages.power, sigma_rel=0.075), tau**2)[-1]
    times = [steps * (i + 1) // count for i in range(count)]
    snapshots = [Profile(t, gamma_of(s)) for t in times for s in curves]
    values = np.array([curves[s][t - 1] for t in times for s in curves])
    gamma = gamma_of(0.075)
    reconstructed = mixing_weights(snapshots, Profile(steps, gamma)) @ values
    assert reconstructed == pytest.approx((gamma + 1) / (gamma + 3), rel=5e-4)
    assert reconstructed == pytest.approx(float(direct), rel=5e-5)


def test_the_first_step_of_power_and_half_life_copies_the_parameters():
    step = jnp.int32(0)
    assert averages.power(step, sigma_rel=0.1) == 0
    assert averages.half_life(step, images=500_000, batch_size=512) == 0


def test_half_life_halves_after_its_images():
    # Far into training the ramp is over, and images / batch_size steps multiply up to one half.
    decay = averages.half_life(jnp.int32(10**6), images=500_000, batch_size=500)
    assert float(decay) ** 1000 == pytest.approx(0.5, rel=1e-3)
    # During the ramp the half-life is 5 % of the images seen.
    early = averages.half_life(jnp.int32(100), images=500_000, batch_size=500)
    assert early == pytest.approx(0.5 ** (500 / (0.05 * 500 * 100)), rel=1e-6)


def test_constant_average_of_a_step_change_is_geometric():
    values = trajectory(partial(averages.constant, decay=0.9), jnp.ones(30))
    np.testing.assert_allclose(values, 1 + (123 - 1) * 0.9 ** np.arange(1, 31), rtol=1e-5)


def test_a_ramp_forgets_the_start_and_ends_at_its_decay():
    """Of the start is left the product of (n + 1) / (n + 10), which is 10! N! (N + 1) / (N + 10)!."""
    values = trajectory(partial(averages.ramped, decay=0.999999), jnp.zeros(200))
    exact = [123 * np.prod([(n + 1) / (n + 10) for n in range(1, steps + 1)]) for steps in (1, 2, 20, 200)]
    np.testing.assert_allclose(values[np.asarray([0, 1, 19, 199])], exact, rtol=1e-4)
    assert exact[-1] < 1e-6
    np.testing.assert_allclose(exact[1], 123 * 2 / 11 * 3 / 12)
    decays = [averages.ramped(jnp.asarray(step), decay=0.9) for step in (0, 78, 79, 10**6)]
    np.testing.assert_allclose(decays, [2 / 11, 80 / 89, 0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "message"),
    [
        (partial(averages.ramped, decay=-0.1), r"must lie in \[0, 1\), got -0.1"),
        (partial(averages.constant, decay=1.0), r"decay of an average must lie in \[0, 1\), got 1.0"),
        (partial(averages.half_life, images=0, batch_size=1), "positive"),
        (partial(averages.power, sigma_rel=0.3), "sigma_rel"),
    ],
)
def test_impossible_averages_are_refused(decay, message):
    with pytest.raises(ValueError, match=message):
        decay(jnp.int32(0))
