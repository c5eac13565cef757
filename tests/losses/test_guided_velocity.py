"""MeanFlow's guided target: its scale, its interval, and whose rows the network is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import guided_velocity

CONDITIONAL, UNCONDITIONAL = 1.7, -0.4


def by_label(x, t, s, y):
    """The guided velocity of scale 2.5 where there is a label, the unguided one elsewhere."""
    np.testing.assert_array_equal(s, t)
    guided = UNCONDITIONAL + 2.5 * (CONDITIONAL - UNCONDITIONAL)
    return jnp.where(y == 7, UNCONDITIONAL, guided)[:, None] * jnp.ones_like(x)


@pytest.mark.parametrize(("omega", "kappa"), [(2.5, 0.0), (0.2, 0.92), (1.25, 0.5)])
def test_the_scale_is_omega_over_one_minus_kappa(omega, kappa):
    """Where the network has that scale, so has the mean of its target; labels that are null keep their velocity."""
    y = jnp.asarray([0, 7, 3])
    v = jnp.where(y == 7, UNCONDITIONAL, CONDITIONAL)[:, None] * jnp.ones((3, 2))
    target = guided_velocity(v, v, jnp.full(3, 0.5), y, u=by_label, null=7, omega=omega, kappa=kappa)
    expected = by_label(v, 0.5, 0.5, y)
    np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_guidance_is_inside_the_interval_alone():
    t, y, v = jnp.asarray([0.19, 0.2, 0.75, 0.76]), jnp.zeros(4, int), jnp.ones((4, 1))
    target = guided_velocity(v, v, t, y, u=by_label, null=7, omega=3.0, interval=(0.2, 0.75))
    np.testing.assert_allclose(target[:, 0], [1, 3 + 2 * 0.4, 3 + 2 * 0.4, 1], rtol=1e-6)


def test_both_guides_see_the_rows_of_their_examples():
    x, t, y = jnp.arange(6.0).reshape(3, 2), jnp.asarray([0.1, 0.5, 0.9]), jnp.asarray([4, 5, 6])

    def u(x, t, s, y):
        return x * t[:, None] + 10.0 * y[:, None]

    target = guided_velocity(-x, x, t, y, u=u, null=7, omega=0.5, kappa=0.25)
    expected = -0.5 * x + 0.25 * u(x, t, t, jnp.full(3, 7)) + 0.25 * u(x, t, t, y)
    np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_kappa_zero_saves_half_the_rows_and_no_gradient_flows():
    calls = []

    def u(x, t, s, y):
        calls.append(y)
        return x

    def target(x, kappa):
        guided = guided_velocity(x, x, jnp.ones(2), jnp.zeros(2, int), u=u, null=1, omega=2.0, kappa=kappa)
        return guided.sum()

    assert (jax.grad(target)(jnp.ones((2, 1)), 0.0) == 0).all()
    assert [call.tolist() for call in calls] == [[1, 1]]
    target(jnp.ones((2, 1)), 0.5)
    assert calls[1].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "numbers", [{"omega": 1.0, "kappa": 1.0}, {"omega": jnp.inf}, {"omega": 1.0, "interval": (0.5, 0.5)}]
)
def test_numbers_that_are_no_guidance(numbers):
    x = jnp.ones((2, 1))
    with pytest.raises(ValueError, match="guidance needs 0 <= kappa < 1, a finite omega and 0 <= low < high"):
        guided_velocity(x, x, jnp.ones(2), jnp.zeros(2, int), u=by_label, null=7, **numbers)
