import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import inverse_time, l2, one, reflow, scaled_pseudo_huber
from tests.oracles import Gaussian, constant_times

DATA, KEY = Gaussian(), jax.random.key(0)
Z = jax.random.normal(KEY, (16, 2))


def straight(x_t, t):
    """The velocity of the coupling x = m + s z, whose trajectories are straight."""
    t = t[:, None]
    z = (x_t - (1 - t) * DATA.mean) / ((1 - t) * DATA.std + t)
    return z - DATA.mean - DATA.std * z


@pytest.mark.usefixtures("float64")
def test_pairs_of_a_flow_have_floor_zero_and_no_gradient_there():
    z = Z.astype(float)
    x = DATA.mean + DATA.std * z

    def objective(shift):
        loss, _ = reflow(lambda x, t: straight(x, t) + shift, x, KEY, coupling=lambda key, x: (x, z), perceptual=l2)
        return loss.mean()

    value, gradient = jax.value_and_grad(objective)(0.0)
    np.testing.assert_allclose([value, gradient], 0, atol=1e-13)
    assert jax.grad(objective)(0.01) > 1e-3


@pytest.mark.parametrize(("weight", "factor"), [(one, 1.0), (inverse_time, 4.0)])
def test_both_terms(weight, factor):
    """At t = 1/4: the velocity is off by w = z - x - v, the data by t w."""
    x = jnp.asarray([[0.5, -0.25, 1.0]])
    z, v = jnp.asarray([[1.0, 2.0, -1.0]]), jnp.asarray([[0.25, 1.0, -3.0]])
    loss, metrics = reflow(
        lambda x, t: v, x, KEY,
        coupling=lambda key, x: (x, z), perceptual=l2, perceptual_weight=weight, times=constant_times(0.25),
    )  # fmt: skip
    off = np.asarray(z - x - v, float)
    huber = (np.sqrt(np.sum(off**2) + (0.00054 * 3) ** 2) - 0.00054 * 3) / 3
    squared = 0.25**2 * np.sum(off**2)
    np.testing.assert_allclose(loss, [0.75 * huber + factor * squared], rtol=1e-6)
    np.testing.assert_allclose(metrics["velocity"], [huber], rtol=1e-6)
    np.testing.assert_allclose(metrics["perceptual"], [squared], rtol=1e-6)
    assert (loss.dtype, loss.shape) == (jnp.float32, (1,))


def test_times_are_u_shaped_by_default_and_the_pairs_those_of_the_coupling():
    x, z = jnp.zeros((4096, 1)), jnp.ones((4096, 1))

    def net(x_t, t):
        np.testing.assert_allclose(x_t[:, 0], t, rtol=1e-6)
        return jnp.ones_like(x_t)

    loss, metrics = reflow(net, x, KEY, coupling=lambda key, x: (x, z), perceptual=l2)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    assert abs(jnp.mean(jnp.abs(metrics["t"] - 0.5) > 0.4) - 0.342) < 4 * np.sqrt(0.342 * 0.658 / 4096)


def test_the_distance_scales_with_the_elements():
    """1.66 for CIFAR-10, where the pseudo-Huber of iCT has 0.030."""
    a = jnp.zeros((1, 32, 32, 3)).at[0, 0, 0, 0].set(3.0)
    expected = (np.sqrt(9 + 1.65888**2) - 1.65888) / 3072
    np.testing.assert_allclose(scaled_pseudo_huber(a, jnp.zeros_like(a)), [expected], rtol=1e-6)
    np.testing.assert_array_equal(scaled_pseudo_huber(a, a), [0.0])


def test_inverse_time_is_held_where_there_is_no_time_left():
    np.testing.assert_allclose(inverse_time(jnp.asarray([0.0, 1e-5, 0.5, 1.0])), [1e5, 1e5, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(inverse_time(jnp.asarray([0.0, 0.5]), low=0.1), [10, 2])
