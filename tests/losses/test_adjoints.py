"""Adjoints against derivatives through the whole chain, finite differences, and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from losses.adjoints import draws, full_adjoint, lean_adjoint, rollout
from losses.transitions import ancestral, euler_maruyama
from tests.oracles import Gaussian, gaussian_velocity

TIMES = np.arange(5, 0, -1) / 5
CHAIN = euler_maruyama(paths.linear, TIMES, offset=0.2)


def nonlinear(strength):
    return lambda x, t: jnp.tanh(strength * x[:, ::-1]) * (1 + t[:, None]) - x


def reward(x):
    return jnp.sum(jnp.sin(x), axis=1)


def inputs(chain=CHAIN, n=3):
    return draws(jax.random.key(0), chain, jnp.zeros((n, 2)))


def test_draws_are_of_the_path_and_the_last_transition_adds_no_noise():
    chain = ancestral(paths.edm, [80.0, 2.0])
    start, noise = draws(jax.random.key(0), chain, jnp.zeros((20_000, 1), jnp.bfloat16))
    assert start.dtype == noise.dtype == jnp.float32
    assert noise.shape == (2, 20_000, 1)
    assert start.std() == pytest.approx(80, rel=0.02)
    assert noise[0].std() == pytest.approx(1, rel=0.02)
    assert abs(jnp.mean(start * noise[0])) / 80 < 0.03
    assert (noise[1] == 0).all()


@pytest.mark.usefixtures("float64")
def test_a_rollout_takes_one_transition_after_the_other():
    start, noise = inputs()
    states = rollout(nonlinear(0.7), CHAIN, start, noise)
    x = start
    for k in range(5):
        np.testing.assert_allclose(states[k], x, rtol=1e-12)
        v = nonlinear(0.7)(x, jnp.full(3, CHAIN.times[k]))
        x = CHAIN.state[k] * x + CHAIN.velocity[k] * v + CHAIN.noise[k] * noise[k]
    np.testing.assert_allclose(states[5], x, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_on_the_trajectory_of_the_base_the_lean_adjoint_is_the_derivative_of_the_end():
    start, noise = inputs()
    base = nonlinear(0.7)

    @jax.jit
    def adjoints(start):
        states = rollout(base, CHAIN, start, noise)
        last = jax.grad(lambda x: reward(x).sum())(states[-1])
        return lean_adjoint(base, base, CHAIN, states, last)

    def end(start):
        return reward(rollout(base, CHAIN, start, noise)[-1])

    got = adjoints(start)
    assert got.shape == (6, 3, 2)
    np.testing.assert_allclose(got[0], jax.grad(lambda x: end(x).sum())(start), rtol=1e-11)
    for i in range(2):
        h = 1e-5 * jnp.eye(2)[i]
        np.testing.assert_allclose(got[0][:, i], (end(start + h) - end(start - h)) / 2e-5, rtol=1e-7)
    # and a_k that of the chain from x_k on
    rest = CHAIN._replace(**{name: getattr(CHAIN, name)[2:] for name in CHAIN._fields[1:]})
    states = rollout(base, CHAIN, start, noise)
    from_2 = jax.grad(lambda x: reward(rollout(base, rest, x, noise[2:])[-1]).sum())(states[2])
    np.testing.assert_allclose(got[2], from_2, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_the_full_adjoint_is_the_derivative_of_cost_and_end_along_the_controlled_chain():
    start, noise = inputs()
    net, base = nonlinear(1.1), nonlinear(0.7)

    def objective(start):
        states = rollout(net, CHAIN, start, noise)
        cost = jnp.zeros(())
        for k in range(5):
            t = jnp.full(3, CHAIN.times[k])
            control = CHAIN.velocity[k] / CHAIN.noise[k] * (net(states[k], t) - base(states[k], t))
            cost += jnp.sum(control**2) / 2
        return cost - reward(states[-1]).sum(), states

    gradient, states = jax.grad(objective, has_aux=True)(start)
    last = -jax.grad(lambda x: reward(x).sum())(states[-1])
    np.testing.assert_allclose(full_adjoint(net, base, CHAIN, states, last)[0], gradient, rtol=1e-10)
    assert jnp.abs(lean_adjoint(net, base, CHAIN, states, last)[0] - gradient).max() > 1e-3
    # Without control the two are one.
    full, lean = (f(base, base, CHAIN, states, last) for f in (full_adjoint, lean_adjoint))
    np.testing.assert_allclose(full, lean, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_linear_reward_has_a_lean_adjoint_that_is_the_same_on_every_trajectory():
    """-lambda c alpha s^2 / V_t in the limit of many steps."""
    data, n = Gaussian(0.4, 0.6), 2000
    t = np.arange(n, 0, -1) / n
    chain = euler_maruyama(paths.linear, t, offset=1 / n)
    base = partial(gaussian_velocity, data, paths.linear)
    states = jax.random.normal(jax.random.key(1), (n + 1, 4, 1))  # of no chain at all
    adjoint = lean_adjoint(base, base, chain, states, jnp.full((4, 1), -1.3))
    np.testing.assert_array_equal(adjoint, jnp.broadcast_to(adjoint[:, :1], adjoint.shape))
    expected = -1.3 * (1 - t) * 0.36 / ((1 - t) ** 2 * 0.36 + t**2)
    np.testing.assert_allclose(adjoint[:-1, 0, 0], expected, atol=3e-3)


@pytest.mark.usefixtures("float64")
def test_the_product_of_the_authors_chain():
    """50 steps of DDIM with eta = 1, beta from 0.002 to 0.009, ending at alpha^2 = (1 + alpha_19^2) / 2."""
    path = paths.scaled_linear_beta(1000, 0.002, 0.009)
    data, t = Gaussian(0.4, 0.6), np.arange(999, 0, -20)
    chain = ancestral(path, t, end=released_end(path, t))
    base = partial(gaussian_velocity, data, path)
    adjoint = lean_adjoint(base, base, chain, jnp.zeros((51, 1, 1)), jnp.full((1, 1), -1.3))
    np.testing.assert_allclose(adjoint[0, 0, 0], -0.03844954, rtol=1e-6)


def released_end(path, t):
    """The time at which alpha^2 is half way from its value at the last timestep to 1."""
    goal = (1 + path.alpha(jnp.asarray(float(t[-1]))) ** 2) / 2
    grid = jnp.linspace(0, t[-1], 20_001)
    return float(jnp.interp(-goal, -(path.alpha(grid) ** 2), grid))


def test_adjoints_stay_in_float32_whatever_the_network_returns():
    start, noise = inputs()
    base = lambda x, t: nonlinear(0.7)(x, t).astype(jnp.bfloat16)
    states = rollout(base, CHAIN, start, noise)
    assert states.dtype == jnp.float32
    for adjoint in (lean_adjoint, full_adjoint):
        assert adjoint(base, base, CHAIN, states, states[-1]).dtype == jnp.float32


@pytest.mark.usefixtures("float64")
def test_a_transition_without_noise_has_no_cost():
    chain = ancestral(paths.linear, TIMES)
    start, noise = inputs(chain)
    net, base = nonlinear(1.1), nonlinear(0.7)
    states = rollout(net, chain, start, noise)
    adjoint = full_adjoint(net, base, chain, states, jnp.ones((3, 2)))
    expected = jax.vjp(lambda x: chain.state[-1] * x + chain.velocity[-1] * net(x, jnp.full(3, 0.2)), states[-2])[1]
    np.testing.assert_allclose(adjoint[-2], expected(jnp.ones((3, 2)))[0], rtol=1e-12)
