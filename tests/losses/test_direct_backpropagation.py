"""DRaFT against derivatives that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from losses.adjoints import draws, rollout
from losses.direct_backpropagation import direct_backpropagation
from losses.transitions import ancestral, euler_maruyama, no_noise
from tests.losses.test_adjoints import nonlinear

TIMES = np.arange(6, 0, -1) / 6
CHAIN, X, KEY = ancestral(paths.linear, TIMES), jnp.zeros((4, 2)), jax.random.key(0)


def reward(x):
    return jnp.sum(jnp.sin(x), axis=1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chain", [CHAIN, euler_maruyama(paths.linear, TIMES, offset=0, variance=no_noise)])
def test_the_loss_is_minus_the_reward_of_the_sample_and_its_gradient_the_whole_one(chain):
    def expected(strength):
        return -reward(rollout(nonlinear(strength), chain, *draws(KEY, chain, X))[-1])

    def loss(strength, last):
        return direct_backpropagation(nonlinear(strength), X, KEY, reward=reward, transitions=chain, last=last)

    wanted, wanted_slope = jax.jit(lambda: jax.jvp(expected, (0.7,), (1.0,)))()
    for last in (None, 6):
        ((got, metrics), (slope, _)) = jax.jit(lambda last=last: jax.jvp(partial(loss, last=last), (0.7,), (1.0,)))()
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        np.testing.assert_array_equal(metrics["reward"], -got)
        np.testing.assert_allclose(slope, wanted_slope, rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("last", [1, 2, 5])
def test_only_the_last_transitions_are_differentiated(last):
    """With v = x / 2 + theta the end moves by sum_k velocity_k prod_{j > k} (state_j + velocity_j / 2)."""
    run = partial(direct_backpropagation, reward=lambda x: jnp.sum(x, axis=1), transitions=CHAIN, last=last)
    gradient = jax.grad(lambda theta: run(lambda x, t: x / 2 + theta, X, KEY)[0].sum())(0.3)
    factors = CHAIN.state + CHAIN.velocity / 2
    expected = sum(CHAIN.velocity[k] * np.prod(factors[k + 1 :]) for k in range(6 - last, 6))
    np.testing.assert_allclose(gradient, -expected * X.size, rtol=1e-6)  # X is float32


def test_a_number_of_transitions_that_there_are_not_is_refused():
    for last in (0, 7):
        with pytest.raises(ValueError, match=f"1 to 6 transitions, got {last}"):
            direct_backpropagation(nonlinear(1.0), X, KEY, reward=reward, transitions=CHAIN, last=last)
