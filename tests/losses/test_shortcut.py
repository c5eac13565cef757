"""Shortcut models where everything is known: along a straight flow, and at Euler's product on Gaussian data.

A step of d = 1 / steps learns the velocity, so longer ones learn Euler's method. On Gaussian data its step from t
multiplies x_t - alpha_t m by 1 - d V'(t) / (2 V(t)), and the product of these is what has no loss, not the ODE.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import shortcut
from losses.paths import expand, interpolate, linear
from losses.shortcut import shortcut_times
from tests.losses.quadrature import posterior_signs
from tests.oracles import Gaussian, gaussian_average_velocity

DATA, STEPS, ROWS, N = Gaussian(), 8, 6, 24
X = np.asarray(DATA.mean + DATA.std * np.random.default_rng(0).standard_normal((N, 2)))


def straight_pairs(key, x):
    """The noise that a straight flow takes to x = m + std z: nothing is left to average."""
    return x, (x - DATA.mean) / DATA.std


def straight(x_t, t, s):
    """The velocity of that flow, which is its own mean."""
    t = expand(t, x_t)
    return -DATA.mean + (1 - DATA.std) * (x_t - (1 - t) * DATA.mean) / ((1 - t) * DATA.std + t)


def euler_product(x_t, t, s):
    """The mean velocity of Euler's steps of 1 / STEPS on Gaussian data; t and s are among their times."""
    grid = np.arange(1, STEPS + 1) / STEPS
    variance = ((1 - grid) * DATA.std) ** 2 + grid**2
    factors = 1 - (grid - (1 - grid) * DATA.std**2) / variance / STEPS
    product = jnp.asarray(np.append(1.0, np.cumprod(factors)))
    at_t, at_s = (product[jnp.round(r * STEPS).astype(int)] for r in (t, s))
    centred = x_t - expand(1 - t, x_t) * DATA.mean
    return -DATA.mean + expand((1 - at_t / at_s) / (t - s), x_t) * centred


def coupled(z, key, x):
    """This noise."""
    return x, z


def run(u, *, coupling, target=None, gradient_of=None, **given):
    """Loss of each row, and its gradient in two numbers added to u, and both beside the solution."""

    def objective(params, target_of):
        net = lambda x_t, t, s: u(x_t, t, s) + params[0] * x_t + params[1] * expand(t - s, x_t)
        loss, _ = shortcut(
            net, jnp.asarray(X), jax.random.key(1), target=target_of or net, rows=ROWS, steps=STEPS, coupling=coupling,
            **given,
        )  # fmt: skip
        return loss.sum(), loss

    step = jax.jit(lambda params: jax.value_and_grad(objective, has_aux=True)(params, target))
    (_, exact), gradient = step(jnp.zeros(2))
    (_, beside), gradient_beside = step(jnp.asarray([0.1, 0.05]))
    return exact, gradient, beside, gradient_beside


@pytest.mark.usefixtures("float64")
def test_along_a_straight_flow_the_exact_solution_has_no_loss_in_any_row():
    exact, gradient, beside, gradient_beside = run(straight, coupling=straight_pairs)
    np.testing.assert_allclose(exact, 0, atol=1e-24)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert (beside > 1e-6).all()
    assert (jnp.abs(gradient_beside) > 1e-2).all()


@pytest.mark.usefixtures("float64")
def test_bootstrap_rows_vanish_for_the_ode_and_for_the_product_of_euler():
    """Both are semigroups; which of the two is learned is decided by the rows of the smallest step."""
    independent = lambda key, x: (x, jax.random.normal(key, x.shape))
    for u in (partial(gaussian_average_velocity, DATA), euler_product):
        exact, _, beside, _ = run(u, coupling=independent)
        np.testing.assert_allclose(exact[:ROWS], 0, atol=1e-24)
        assert (beside[:ROWS] > 1e-8).all()
        assert (exact[ROWS:] > 1e-6).all()  # the floor of flow matching


@pytest.mark.usefixtures("float64")
def test_the_product_of_euler_is_the_fixed_point_and_the_ode_is_not():
    """Given x_t the posterior has two equivalent nodes, one in each of two batches that differ in nothing else."""
    t, _ = shortcut_times(jax.random.split(jax.random.key(1))[0], N, rows=ROWS, steps=STEPS)
    x_t = DATA.mean * (1 - t) + jnp.linspace(-1.5, 1.5, N)
    nodes = [posterior_signs(DATA, linear, x_t[i : i + 1], float(t[i])) for i in range(N)]
    x, z = (jnp.concatenate([n[which] for n in nodes]) for which in (0, 1))

    @partial(jax.jit, static_argnums=0)
    def gradient(u, params):
        def objective(params):
            # Told apart by the step: both functions of the state may be wrong at the smallest one alone.
            net = lambda x_t, t, s: (
                u(x_t, t, s)
                + jnp.where(expand(t - s, x_t) == 1 / STEPS, params[0] * x_t + params[1], params[2] * x_t + params[3])
            )
            both = [
                shortcut(
                    net, x[i::2], jax.random.key(1), target=net, rows=ROWS, steps=STEPS,
                    coupling=partial(coupled, z[i::2]),
                )[0].sum()
                for i in (0, 1)
            ]  # fmt: skip
            return both[0] + both[1]

        return jax.grad(objective)(params)

    np.testing.assert_allclose(gradient(euler_product, jnp.zeros(4)), 0, atol=1e-11)
    ode = gradient(partial(gaussian_average_velocity, DATA), jnp.zeros(4))
    assert (jnp.abs(ode[:2]) > 1e-2).all()
    assert (jnp.abs(gradient(euler_product, jnp.full(4, 0.1))) > 1e-2).all()


@pytest.mark.usefixtures("float64")
def test_the_goal_of_the_first_rows_is_two_half_steps_clipped():
    """Written out once more for a target that is no solution; infinity clips nothing."""
    key, x, seen = jax.random.key(1), jnp.asarray(X), []
    z = jax.random.normal(key, x.shape)
    target = lambda x_t, t, s: 3 * jnp.sin(x_t) + expand(t - 2 * s, x_t)

    def u(x_t, t, s):
        seen.append((x_t, t, s))
        return jnp.zeros_like(x_t)

    run_with = partial(shortcut, u, x, key, target=target, rows=ROWS, steps=STEPS, coupling=partial(coupled, z))
    for clip in (1.3, math.inf):
        loss, metrics = run_with(clip=clip)
        x_t, t, s = seen.pop()
        np.testing.assert_array_equal(metrics["t"], t)
        np.testing.assert_allclose(x_t, interpolate(linear, x, z, t), rtol=1e-14)
        middle = (t + s) / 2
        first = target(x_t, t, middle)
        x_middle = x_t - expand(t - middle, x) * first
        if clip < math.inf:
            x_middle = jnp.clip(x_middle, -clip, clip)
        goal = (first + target(x_middle, middle, s)) / 2
        if clip < math.inf:
            assert jnp.abs(goal[:ROWS]).max() > clip
            goal = jnp.clip(goal, -clip, clip)
        goal = jnp.concatenate([goal[:ROWS], (z - x)[ROWS:]])  # flow matching is never clipped
        np.testing.assert_allclose(loss, (goal**2).sum(axis=1), rtol=1e-12)


def test_target_sees_the_first_rows_and_takes_no_gradient():
    shapes = []

    def target(x_t, t, s, a=1.0):
        shapes.append((x_t.shape, t.shape, s.shape))
        return a * x_t

    def loss(a):
        net = lambda x_t, t, s: jnp.sin(x_t)
        x = jnp.asarray(X, jnp.float32)
        return shortcut(net, x, jax.random.key(1), target=partial(target, a=a), rows=ROWS, steps=STEPS)[0].sum()

    assert jax.grad(loss)(1.0) == 0
    assert shapes == [((ROWS, 2), (ROWS,), (ROWS,))] * 2


def test_law_of_the_steps():
    """As published: of 7 levels as many rows each, what is left over takes the whole way; t is a multiple of d."""
    t, d = (np.asarray(a) for a in shortcut_times(jax.random.key(0), 4096, rows=512))
    np.testing.assert_array_equal(d[512:], 1 / 128)
    expected = np.repeat(2.0 ** -np.arange(6, -1, -1), 73)
    np.testing.assert_array_equal(d[:511], expected)
    assert d[511] == 1
    np.testing.assert_array_equal(t / d, np.round(t / d))
    assert (t >= d).all()
    assert (t <= 1).all()
    counts = np.bincount((t[512:] * 128).astype(int), minlength=129)[1:]
    assert (np.abs(counts - 28) < 5 * np.sqrt(28)).all()
    # Exact powers of two, so the second input of the network is a whole number.
    np.testing.assert_allclose(np.log2(1 / (t - (t - d))), np.round(np.log2(1 / d)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 100}, "power of 2"),
        ({"steps": 1}, "power of 2"),
        ({"rows": 2}, "rows must be at least .* 3"),
        ({"rows": N}, f"less than the batch of {N}, got {N}"),
        ({"clip": 0.0}, "clip must be positive"),
    ],
)
def test_bad_numbers(changes, message):
    def never(*inputs):
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        shortcut(
            never, jnp.ones((N, 2)), jax.random.key(0), **{"target": never, "rows": ROWS, "steps": STEPS, **changes}
        )
