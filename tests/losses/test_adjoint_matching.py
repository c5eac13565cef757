"""Adjoint Matching at its optimum, which is known for Gaussian data, and its relation to the continuous adjoint."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from losses import paths
from losses.adjoint_matching import adjoint_matching, early_and_last, match
from losses.adjoints import draws, full_adjoint, lean_adjoint, rollout
from losses.transitions import ancestral, euler_maruyama, no_noise
from tests.losses.test_adjoints import nonlinear, released_end
from tests.oracles import Gaussian, gaussian_velocity

DATA, SCALE, LINEAR = Gaussian(0.4, 0.6), 1.3, paths.linear
BASE = partial(gaussian_velocity, DATA, LINEAR)


def times(n):
    return np.arange(n, 0, -1) / n


def linear_reward(x):
    return jnp.sum(x, axis=1)


def affine(path, t):
    """(slope, intercept) [K] of the base's velocity."""
    at_zero, at_one = (np.asarray(gaussian_velocity(DATA, path, jnp.full(t.shape, x), t)) for x in (0.0, 1.0))
    return at_one - at_zero, at_zero


def controlled(chain, shifts, slopes=None, base=BASE):
    """The base plus an affine function of the state at each time of the chain."""
    shifts = jnp.asarray(shifts)
    slopes = jnp.zeros_like(shifts) if slopes is None else jnp.asarray(slopes)

    def net(x, t):
        k = jnp.argmin(jnp.abs(jnp.asarray(chain.times) - t[0]))
        return base(x, t) + slopes[k] * x + shifts[k]

    return net


def optimum(chain, base=BASE, scale=SCALE):
    """-noise^2 a_{k+1} / velocity of the linear reward, and the adjoint itself [K + 1]."""
    states = jnp.zeros((len(chain.times) + 1, 1, 1))
    adjoint = np.asarray(lean_adjoint(base, base, chain, states, jnp.full((1, 1), -scale)))[:, 0, 0]
    return -(chain.noise**2) * adjoint[1:] / chain.velocity, adjoint


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "chain",
    [euler_maruyama(LINEAR, times(8), offset=1 / 8), ancestral(LINEAR, times(8))],
    ids=["euler_maruyama", "ancestral"],
)
def test_with_a_linear_reward_the_loss_is_zero_at_the_optimum_on_and_off_policy(chain):
    net = controlled(chain, optimum(chain)[0])
    x, key = jnp.zeros((5, 2)), jax.random.key(0)
    run = partial(adjoint_matching, base=BASE, reward=linear_reward, transitions=chain, reward_scale=SCALE)
    loss, metrics = jax.jit(lambda: run(net, x, key))()
    np.testing.assert_allclose(loss, 0, atol=1e-20)
    assert metrics["reward"].shape == (5,)
    assert metrics["reward"].std() > 0.1
    assert (run(BASE, x, key)[0] > 0.1).all()

    # On trajectories of another network, and of none.
    for states in (rollout(nonlinear(0.5), chain, *draws(key, chain, x)), jax.random.normal(key, (9, 5, 2))):
        adjoints = lean_adjoint(BASE, BASE, chain, states, jnp.full((5, 2), -SCALE))
        chosen = jnp.arange(np.count_nonzero(chain.noise))
        np.testing.assert_allclose(match(net, BASE, chain, states, adjoints, chosen), 0, atol=1e-20)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [lambda t: euler_maruyama(LINEAR, t, offset=t[-1]), partial(ancestral, LINEAR)])
def test_the_optimum_is_the_velocity_of_the_tilted_data(make):
    """exp(lambda x) N(m, s^2) is N(m + lambda s^2, s^2), and its velocity is what other samplers may integrate."""
    tilted = DATA._replace(mean=DATA.mean + SCALE * DATA.std**2)
    errors = []
    for n in (400, 800):
        chain = make(times(n))
        t = jnp.asarray(chain.times[:-1])
        wanted = gaussian_velocity(tilted, LINEAR, 0 * t, t) - gaussian_velocity(DATA, LINEAR, 0 * t, t)
        errors.append(np.abs(optimum(chain)[0][:-1] - wanted).max())
    assert np.abs(wanted).max() > 0.5
    assert errors[1] < 0.01
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("steps", "next_one", "same_one", "exact"), [(50, 0.410, 0.382, 0.411), (10, 0.408, 0.300, 0.410)]
)
def test_the_adjoint_after_the_transition_tilts_the_discrete_chain_and_the_one_before_does_not(
    steps, next_one, same_one, exact
):
    """Shift of the mean in the chain of the authors' code; exact is lambda times the variance at the end."""
    path = paths.scaled_linear_beta(1000, 0.002, 0.009)
    t = np.arange(999, 0, -1000 // steps)
    chain = ancestral(path, t, end=released_end(path, t))
    velocity = partial(gaussian_velocity, DATA, path)
    _, adjoint = optimum(chain, velocity)
    factors = chain.state + chain.velocity * affine(path, jnp.asarray(chain.times))[0]

    def shift(chosen):
        mean = 0.0
        for factor, noise, a in zip(factors, chain.noise, chosen, strict=True):
            mean = factor * mean - noise**2 * a
        return mean

    variance = chain.start**2
    for factor, noise in zip(factors, chain.noise, strict=True):
        variance = factor**2 * variance + noise**2
    np.testing.assert_allclose([shift(adjoint[1:]), shift(adjoint[:-1])], [next_one, same_one], atol=6e-4)
    np.testing.assert_allclose(SCALE * variance, exact, atol=6e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("level", "expected"), [(0.1, 0.108), (0.5, 0.342), (1.0, 0.434), (4.0, 0.468)])
def test_noise_that_remembers_the_start_tilts_too_little(level, expected):
    """The mean moves by lambda Var(x_K | x_0) instead of lambda s^2 = 0.468."""
    chain = euler_maruyama(LINEAR, times(2000), offset=0, variance=lambda t, eta: np.full_like(t, level))
    _, adjoint = optimum(chain)
    # The shift is sum_k noise_k^2 a_{k+1}^2 / lambda, as a_{k+1} / a_K is the product of the later factors.
    assert np.sum(chain.noise**2 * adjoint[1:] ** 2) / SCALE == pytest.approx(expected, abs=2e-3)


def test_without_noise_nothing_can_be_matched():
    chain = euler_maruyama(LINEAR, times(4), offset=0, variance=no_noise)
    with pytest.raises(ValueError, match="all transitions but the last need noise"):
        adjoint_matching(BASE, jnp.zeros((2, 1)), jax.random.key(0), base=BASE, reward=linear_reward, transitions=chain)


def quadratic_optimum(chain, gamma, centre):
    """Best affine controls of -gamma/2 (x - c)^2 by dynamic programming: slopes and shifts of net - base [K]."""
    slope, intercept = affine(LINEAR, jnp.asarray(chain.times))
    P, p = gamma, gamma * centre
    slopes, shifts = [], []
    for k in reversed(range(len(chain.times))):
        F, g, S2 = chain.state[k] + chain.velocity[k] * slope[k], chain.velocity[k] * intercept[k], chain.noise[k] ** 2
        # The mean moves by m = -S2 (P (F x + g) - p) / (1 + S2 P), and the value stays P x^2 / 2 - p x.
        slopes.append(-S2 * P * F / (1 + S2 * P) / chain.velocity[k])
        shifts.append(-S2 * (P * g - p) / (1 + S2 * P) / chain.velocity[k])
        P, p = F**2 * P / (1 + S2 * P), F * (p - P * g) / (1 + S2 * P)
    return jnp.asarray(slopes[::-1]), jnp.asarray(shifts[::-1])


@pytest.mark.usefixtures("float64")
def test_with_a_quadratic_reward_the_gradient_is_zero_at_the_optimum_and_the_loss_is_not():
    """The gradient is an expectation of squares of states, which points on the axes of all draws give exactly."""
    n, gamma, centre = 6, 2.0, 1.5
    chain = euler_maruyama(LINEAR, times(n), offset=1 / n)
    points = np.sqrt(n + 1) * jnp.concatenate([jnp.eye(n + 1), -jnp.eye(n + 1)])
    start, noise = chain.start * points[:, :1], points.T[1:, :, None]
    reward = lambda x: -gamma / 2 * jnp.sum((x - centre) ** 2, axis=1)

    def gradient(adjoint, parameters):
        states = rollout(controlled(chain, *parameters), chain, start, noise)
        last = -jax.grad(lambda x: reward(x).sum())(states[-1])

        def loss(parameters):
            net = controlled(chain, *parameters)
            adjoints = jax.lax.stop_gradient(adjoint(net, BASE, chain, states, last))
            return match(net, BASE, chain, states, adjoints, jnp.arange(n)).mean()

        return jax.value_and_grad(loss)(parameters)

    slopes, shifts = quadratic_optimum(chain, gamma, centre)
    for adjoint in (lean_adjoint, full_adjoint):
        run = jax.jit(partial(gradient, adjoint))
        value, zero = run((shifts, slopes))
        np.testing.assert_allclose(jnp.concatenate(zero), 0, atol=1e-12)
        assert value > 0.1
        _, away = run((shifts + 0.1, slopes))
        assert jnp.abs(jnp.concatenate(away)).max() > 0.05


@pytest.mark.usefixtures("float64")
def test_the_quadratic_optimum_is_the_velocity_of_the_tilted_data():
    """Precision 1/s^2 + gamma; and so the dynamic programme that the test above trusts."""
    gamma, centre, n = 2.0, 1.5, 2000
    precision = 1 / DATA.std**2 + gamma
    tilted = Gaussian((DATA.mean / DATA.std**2 + gamma * centre) / precision, precision**-0.5)
    chain = euler_maruyama(LINEAR, times(n), offset=1 / n)
    slopes, shifts = quadratic_optimum(chain, gamma, centre)
    t = jnp.asarray(chain.times)
    for x in (jnp.full_like(t, -1.0), jnp.full_like(t, 2.0)):
        wanted = gaussian_velocity(tilted, LINEAR, x, t) - gaussian_velocity(DATA, LINEAR, x, t)
        np.testing.assert_allclose(slopes * x + shifts, wanted, atol=8e-3)


def moments(chain, slopes, shifts):
    """Mean and standard deviation of the chain's end under these controls."""
    slope, intercept = affine(LINEAR, jnp.asarray(chain.times))
    mean, variance = 0.0, chain.start**2
    for k in range(len(chain.times)):
        factor = chain.state[k] + chain.velocity[k] * (slope[k] + slopes[k])
        mean = factor * mean + chain.velocity[k] * (intercept[k] + shifts[k])
        variance = factor**2 * variance + chain.noise[k] ** 2
    return np.asarray([mean, np.sqrt(variance)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_training_from_the_base_reaches_the_tilted_data(name):
    """By Adam on affine controls, on points that make expectations exact; tilted is what the chain of the base draws.

    Controls move means alone: by a quadratic reward the standard deviation is then a little above the tilted one's.
    """
    n, gamma, centre = 10, 2.0, 1.5
    chain = ancestral(LINEAR, times(n))
    points = np.sqrt(n + 1) * jnp.concatenate([jnp.eye(n + 1), -jnp.eye(n + 1)])
    start, noise = chain.start * points[:, :1], points.T[1:, :, None]
    rewards = {
        "linear": lambda x: SCALE * jnp.sum(x, axis=1),
        "quadratic": lambda x: -gamma / 2 * jnp.sum((x - centre) ** 2, axis=1),
    }

    def loss(parameters):
        net = controlled(chain, *parameters)
        states = jax.lax.stop_gradient(rollout(net, chain, start, noise))
        last = -jax.grad(lambda x: rewards[name](x).sum())(states[-1])
        adjoints = lean_adjoint(net, BASE, chain, states, last)
        return match(net, BASE, chain, states, jax.lax.stop_gradient(adjoints), jnp.arange(n - 1)).mean()

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 1500))

    def step(state, _):
        parameters, momenta = state
        updates, momenta = optimizer.update(jax.grad(loss)(parameters), momenta)
        return (optax.apply_updates(parameters, updates), momenta), None

    base = (jnp.zeros(n), jnp.zeros(n))
    (shifts, slopes), _ = jax.jit(lambda state: jax.lax.scan(step, state, None, 1500)[0])((base, optimizer.init(base)))
    mean, std = moments(chain, *base)
    got = moments(chain, slopes, shifts)
    if name == "linear":
        np.testing.assert_allclose(got, [mean + SCALE * std**2, std], rtol=1e-4)
    else:
        precision = 1 / std**2 + gamma
        np.testing.assert_allclose(got[0], (mean / std**2 + gamma * centre) / precision, rtol=1e-4)
        np.testing.assert_allclose(got, moments(chain, *quadratic_optimum(chain, gamma, centre)), rtol=1e-4)
        assert precision**-0.5 < got[1] < precision**-0.5 + 0.015 < std


@pytest.mark.usefixtures("float64")
def test_the_full_adjoint_gives_twice_the_gradient_of_cost_minus_reward_through_the_chain():
    n, key, x = 5, jax.random.key(0), jnp.zeros((4, 2))
    chain = euler_maruyama(LINEAR, times(n), offset=1 / n)
    base, reward = nonlinear(0.7), lambda x: jnp.sum(jnp.sin(x), axis=1)

    def loss(strength, adjoint):
        return adjoint_matching(
            nonlinear(strength),
            x,
            key,
            base=base,
            reward=reward,
            transitions=chain,
            reward_scale=SCALE,
            adjoint=adjoint,
        )[0].sum()

    def objective(strength):
        net = nonlinear(strength)
        states = rollout(net, chain, *draws(jax.random.split(key)[0], chain, x))
        cost = jnp.zeros(())
        for k in range(n):
            t = jnp.full(4, chain.times[k])
            control = chain.velocity[k] / chain.noise[k] * (net(states[k], t) - base(states[k], t))
            cost += jnp.sum(control**2) / 2
        return cost - SCALE * reward(states[-1]).sum()

    expected = 2 * jax.jit(jax.grad(objective))(1.1)
    full, lean = (jax.jit(jax.grad(partial(loss, adjoint=adjoint))) for adjoint in (full_adjoint, lean_adjoint))
    np.testing.assert_allclose(full(1.1), expected, rtol=1e-10)
    assert abs(lean(1.1) - expected) > 1e-3 * abs(expected)
    # Where nothing has been learned yet the two agree.
    np.testing.assert_allclose(full(0.7), lean(0.7), rtol=1e-10)


def test_a_term_above_the_clip_has_no_gradient():
    chain = ancestral(LINEAR, times(6))
    run = partial(adjoint_matching, base=BASE, reward=linear_reward, transitions=chain, reward_scale=SCALE)

    @jax.jit
    @partial(jax.value_and_grad, argnums=0)
    def value_and_gradient(shift, k):
        net = controlled(chain, jnp.full(6, shift))
        return run(net, jnp.zeros((2, 1)), jax.random.key(0), choice=lambda key, n: k[None])[0].sum()

    @jax.jit
    @jax.value_and_grad
    def clipped(shift):
        return run(controlled(chain, jnp.full(6, shift)), jnp.zeros((2, 1)), jax.random.key(0), clip=bound)[0].sum()

    terms = [
        (float(value) / 2, float(slope)) for value, slope in (value_and_gradient(0.3, jnp.asarray(k)) for k in range(5))
    ]
    bound = sorted(value for value, _ in terms)[2] + 1e-6
    value, slope = clipped(0.3)
    np.testing.assert_allclose(value, 2 * sum(min(v, bound) for v, _ in terms), rtol=1e-5)
    np.testing.assert_allclose(slope, sum(g for v, g in terms if v <= bound), rtol=1e-4)


def test_the_chosen_transitions_are_the_last_and_some_of_the_others():
    keys = jax.random.split(jax.random.key(0), 200)
    chosen = np.asarray(jax.vmap(lambda key: early_and_last(key, 9, early=3, last=4))(keys))
    assert (chosen[:, 3:] == np.arange(5, 9)).all()
    assert all(len(set(row)) == 7 for row in chosen)
    counts = np.bincount(chosen[:, :3].ravel(), minlength=5)
    assert len(counts) == 5
    assert (np.abs(counts - 120) < 4 * np.sqrt(120 * 0.4)).all()
    for early, last in ((0, 0), (6, 4), (-1, 4)):
        with pytest.raises(ValueError, match="1 to 9 transitions together"):
            early_and_last(keys[0], 9, early=early, last=last)


def test_wrong_rewards_are_refused_and_the_loss_is_float32():
    chain, x = ancestral(LINEAR, times(3)), jnp.zeros((2, 3), jnp.bfloat16)
    half = lambda x, t: BASE(x, t).astype(jnp.bfloat16)
    run = partial(adjoint_matching, half, x, jax.random.key(0), base=half, transitions=chain)
    assert run(reward=linear_reward)[0].dtype == jnp.float32
    for wrong in (lambda x: x, lambda x: x.sum()):
        with pytest.raises(ValueError, match="one number per example"):
            run(reward=wrong)
