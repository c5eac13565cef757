"""Improved MeanFlow at the exact solution: V is the velocity itself, whatever s, and the loss is flow matching's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import improved_mean_flow, power_law_guidance
from losses.improved_mean_flow import Guidance
from losses.paths import interpolate, linear
from tests.losses.quadrature import posterior_signs, signs
from tests.oracles import Gaussian, gaussian_average_velocity, gaussian_velocity

DATA = Gaussian(0.7, 0.5)


def exact(x, t, s, y, g):
    return gaussian_average_velocity(DATA, x, t, s), gaussian_velocity(DATA, linear, x, t)


def constant_pairs(t, s):
    return lambda key, n: (jnp.full(n, t), jnp.full(n, s), jnp.ones(n))


# ---- The exact solution ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("s", [0.0, 0.25, 0.7999, 0.8])
def test_floor_is_that_of_flow_matching_whatever_s(s):
    """s^2 / V_t for each head and element."""
    nodes = signs(DATA)
    loss, metrics = improved_mean_flow(
        exact, nodes.x, jax.random.key(0), pairs=constant_pairs(0.8, s), jump_share=1, p=0.0, coupling=nodes.coupling
    )
    for name in ("distance", "distance_v"):
        np.testing.assert_allclose(nodes.mean(metrics[name]), 0.25 / 0.65, rtol=1e-12)
    np.testing.assert_allclose(nodes.mean(loss), 2 * 0.3846153846, rtol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_gradient_vanishes_at_the_exact_solution_alone(p):
    nodes = posterior_signs(DATA, linear, jnp.linspace(-1.5, 2.0, 6), 0.8)

    @jax.jit
    def gradient(params):
        def objective(params):
            def net(x, t, s, y, g):
                u, v = exact(x, t, s, y, g)
                return u + params[0] + params[1] * x, v + params[2] + params[3] * x**2

            loss, _ = improved_mean_flow(
                net, nodes.x, jax.random.key(0), pairs=constant_pairs(0.8, 0.25), jump_share=1, p=p,
                coupling=nodes.coupling,
            )  # fmt: skip
            return nodes.mean(loss)

        return jax.grad(objective)(params)

    np.testing.assert_allclose(gradient(jnp.zeros(4)), 0, atol=1e-12)
    for i in range(4):
        assert jnp.abs(gradient(jnp.zeros(4).at[i].set(0.05))).max() > 1e-3


# ---- What is differentiated along what -------------------------------------------------------------------------------


def linear_heads(x, t, s, y, g):
    """u = (2 x + 3 t - s), v = x: along v, du/dt = 2 x + 3."""
    t, s = t[:, None], s[:, None]
    return 2 * x + 3 * t - s, x


def test_the_derivative_is_taken_along_the_networks_own_velocity():
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t, s = jnp.asarray([0.5, 0.6, 0.7, 0.8]), jnp.asarray([0.1, 0.2, 0.3, 0.4])
    _, metrics = improved_mean_flow(
        linear_heads, x, jax.random.key(0), pairs=lambda key, n: (t, s, jnp.ones(n)), jump_share=0.5, p=0.0,
        coupling=lambda key, x: (x, z),
    )  # fmt: skip
    s = jnp.where(jnp.arange(4) % 2 == 0, s, t)[:, None]
    t = t[:, None]
    x_t, v = (1 - t) * x + t * z, z - x
    V = 2 * x_t + 3 * t - s + (t - s) * (2 * x_t + 3)
    np.testing.assert_allclose(metrics["distance"], jnp.mean((V - v) ** 2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(metrics["distance_v"], jnp.mean((x_t - v) ** 2, axis=1), rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_the_derivative_against_finite_differences():
    def net(x, t, s, y, g):
        t, s = t[:, None], s[:, None]
        return jnp.sin(2 * x[:, ::-1] + t - 3 * s) + t * s * x, t * jnp.cos(x)

    x, z = jax.random.normal(jax.random.key(0), (2, 6, 2))
    t, s = jnp.linspace(0.4, 1.0, 6), jnp.linspace(0.0, 0.6, 6)
    _, metrics = improved_mean_flow(
        net, x, jax.random.key(0), pairs=lambda key, n: (t, s, jnp.ones(n)), jump_share=1, p=0.0,
        coupling=lambda key, x: (x, z),
    )  # fmt: skip
    x_t = interpolate(linear, x, z, t)
    own, h = net(x_t, t, t, None, None)[1], 1e-5
    ahead, behind = (net(x_t + d * own, t + d, s, None, None)[0] for d in (h, -h))
    V = net(x_t, t, s, None, None)[0] + (t - s)[:, None] * (ahead - behind) / (2 * h)
    np.testing.assert_allclose(metrics["distance"], jnp.mean((V - (z - x)) ** 2, axis=1), rtol=1e-8)


def test_the_velocity_it_is_taken_along_and_the_derivative_are_constants():
    """Of u = a x + b t and v = c x alone the first term's a and b, and the second term's c, have a gradient."""
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 1))
    t, s = jnp.full((4, 1), 0.8), jnp.full((4, 1), 0.25)
    x_t, v = (1 - t) * x + t * z, z - x

    def ours(params):
        a, b, c = params

        def net(x, t, s, y, g):
            return a * x + b * t[:, None], c * x

        loss, _ = improved_mean_flow(
            net, x, jax.random.key(0), pairs=constant_pairs(0.8, 0.25), jump_share=1, p=0.0,
            coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return loss.sum()

    a, b, c = params = jnp.asarray([0.7, -0.3, 1.1])
    error = a * x_t + b * t + (t - s) * (a * c * x_t + b) - v
    expected = [jnp.sum(2 * error * x_t), jnp.sum(2 * error * t), jnp.sum(2 * (c * x_t - v) * x_t)]
    np.testing.assert_allclose(jax.jit(jax.grad(ours))(params), jnp.stack(expected), rtol=1e-5)


# ---- Guidance --------------------------------------------------------------------------------------------------------

NULL = 7


def test_guided_target_and_its_interval():
    """v + (1 - 1/omega) (v(y) - v(null)) inside the interval, without a label v; where s = t the interval is all."""
    omega, low, high = 4.0, 0.3, 0.6
    told = []

    def net(x, t, s, y, g):
        told.append((y, g))
        head = jnp.where(y == NULL, -0.4, 1.7)[:, None] * jnp.ones_like(x)
        return head, head

    def law(key, n):
        return Guidance(jnp.full(n, omega), jnp.full(n, low), jnp.full(n, high))

    t = jnp.asarray([0.5, 0.5, 0.9, 0.9, 0.5, 0.9])  # every second one of them has s = t
    y = jnp.asarray([0, 0, 0, 0, NULL, NULL])
    x, z = jax.random.normal(jax.random.key(0), (2, 6, 3))
    _, metrics = improved_mean_flow(
        net, x, jax.random.key(0), y=y, guidance=law, null=NULL, pairs=lambda key, n: (t, 0 * t, jnp.ones(n)),
        jump_share=0.5, p=0.0, coupling=lambda key, x: (x, z),
    )  # fmt: skip
    guided = jnp.asarray([True, True, False, True, False, False])[:, None]
    goal = z - x + jnp.where(guided, (1 - 1 / omega) * (1.7 + 0.4), 0.0)
    head = jnp.where(y == NULL, -0.4, 1.7)[:, None]
    np.testing.assert_allclose(metrics["distance_v"], jnp.mean((head - goal) ** 2, axis=1), rtol=1e-5)
    whole = told[0][1]
    np.testing.assert_allclose(whole.low, [low, 0, low, 0, low, 0])
    np.testing.assert_allclose(whole.high, [high, 1, high, 1, high, 1])
    # Its own velocity, the one without label, and the two parts.
    assert [len(y) for y, _ in told] == [6, 6, 3, 3]
    assert (told[1][0] == NULL).all()


def test_at_its_fixed_point_the_scale_is_omega():
    """v(y) = v(null) + omega (v_t - v(null)) solves v(y) = v_t + (1 - 1/omega) (v(y) - v(null))."""
    omega, v_t, null = 4.0, 1.7, -0.4
    v = null + omega * (v_t - null)
    np.testing.assert_allclose(v_t + (1 - 1 / omega) * (v - null), v, rtol=1e-14)


def test_a_network_without_guidance_is_told_one():
    told = []

    def net(x, t, s, y, g):
        told.append(g)
        return x, x

    improved_mean_flow(net, jnp.ones((4, 2)), jax.random.key(0))
    for g in told:
        assert (g.omega == 1).all()
        assert (g.low == 0).all()
        assert (g.high == 1).all()
    assert len(told) == 3  # its own velocity where s < t, and the two parts


@pytest.mark.parametrize(("y", "null"), [(None, 7), (jnp.zeros(4, int), None)])
def test_guidance_without_labels(y, null):
    with pytest.raises(ValueError, match="guidance needs labels y and the label null"):
        improved_mean_flow(exact, jnp.ones((4, 1)), jax.random.key(0), y=y, null=null, guidance=power_law_guidance)


@pytest.mark.parametrize("beta", [1.0, 0.5, 2.0])
def test_law_of_the_scales(beta):
    """P(omega < w) = (w^(1 - beta) - 1) / (8^(1 - beta) - 1), which is ln w / ln 8 at beta = 1."""
    n = 20_000
    law = jax.jit(lambda key: power_law_guidance(key, n, beta=beta))(jax.random.key(0))
    power = 1 - beta
    for w in (1.5, 8**0.5, 6.0):
        expected = np.log(w) / np.log(8) if power == 0 else (w**power - 1) / (8**power - 1)
        assert abs((law.omega < w).mean() - expected) < 4 * np.sqrt(0.25 / n)
    if beta == 1:
        assert abs(np.median(law.omega) - 2.83) < 0.1
    assert (law.omega >= 1).all()
    assert (law.omega <= 8.001).all()
    for bound, low in ((law.low, 0.0), (law.high, 0.5)):
        assert abs(bound.mean() - low - 0.25) < 4 * np.sqrt(1 / 48 / n)
        assert low <= bound.min()
        assert bound.max() <= low + 0.5
    assert abs(np.corrcoef(law.low, law.high)[0, 1]) < 4 / np.sqrt(n)
    with pytest.raises(ValueError, match="largest=1"):
        power_law_guidance(jax.random.key(0), 4, largest=1.0)


# ---- The whole recipe ------------------------------------------------------------------------------------------------


def test_with_power_one_the_loss_is_two():
    x = jax.random.normal(jax.random.key(0), (8, 50))
    loss, _ = jax.jit(partial(improved_mean_flow, linear_heads))(x, jax.random.key(1))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 2, atol=0.01)
