"""Align Your Flow at the exact flow map of Gaussian data, beside it, and against finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import align_eulerian, align_lagrangian, curricula, linear, pairs, rectified_flow, tangents
from losses.paths import expand, interpolate
from tests.oracles import Gaussian, constant_times, gaussian_average_velocity, gaussian_velocity

DATA = Gaussian(0.3, 0.7)
LAW = partial(pairs.ordered, to_data=0.2, same=0.2)
TEACHER = partial(gaussian_velocity, DATA, linear)
LOSSES = {"eulerian": align_eulerian, "lagrangian": align_lagrangian}
X = np.asarray(DATA.mean + DATA.std * np.random.default_rng(0).standard_normal((64, 2)))


def plain(g: jax.Array) -> jax.Array:
    return g


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("tangent", [plain, tangents.normalised, tangents.clipped])
@pytest.mark.parametrize("name", LOSSES)
def test_exact_map(name, tangent, bits):
    """The tangent and the gradient are 0, and neither is beside it."""
    with jax.enable_x64(bits == 64):
        x, rounding = jnp.asarray(X), 1e-12 if bits == 64 else 2e-6

        @jax.jit
        def run(params):
            def objective(params):
                u = lambda x_t, t, s: gaussian_average_velocity(DATA, x_t, t, s) + params[0] * x_t + params[1]
                loss, metrics = LOSSES[name](u, x, jax.random.key(1), velocity=TEACHER, pairs=LAW, tangent=tangent)
                return loss.mean(), metrics["tangent"]

            return jax.grad(objective, has_aux=True)(params)

        gradient, tangents_seen = run(jnp.zeros(2))
        assert tangents_seen.max() < rounding
        np.testing.assert_allclose(gradient, 0, atol=50 * rounding)
        gradient, tangents_seen = run(jnp.asarray([0.1, 0.05]))
        assert (tangents_seen > 1e-4).all()
        assert (jnp.abs(gradient) > 1e-2).all()


def curved(a):
    return lambda x_t, t, s: jnp.sin(a * x_t + expand(2 * t - s, x_t)) + a * expand(t * s, x_t) * x_t


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_the_tangent_is_the_derivative_of_the_map_and_alone_makes_the_gradient(name, warmup):
    """By finite differences; the gradient of the loss in a parameter is -2 du/da g."""
    x, h, value = jnp.asarray(X), 1e-5, 0.7
    key_t, key_z = jax.random.split(jax.random.key(1))
    t, s, _ = LAW(key_t, len(x))
    x_t, gap = interpolate(linear, x, jax.random.normal(key_z, x.shape), t), expand(t - s, x)
    u = curved(value)
    v = TEACHER(x_t, t)
    if name == "eulerian":
        rate = (u(x_t + h * v, t + h, s) - u(x_t - h * v, t - h, s)) / (2 * h)
        g = v - u(x_t, t, s) - warmup * gap * rate
    else:
        rate = (u(x_t, t, s + h) - u(x_t, t, s - h)) / (2 * h)
        g = TEACHER(x_t - gap * u(x_t, t, s), s) - u(x_t, t, s) + warmup * gap * rate
    by_parameter = (curved(value + h)(x_t, t, s) - curved(value - h)(x_t, t, s)) / (2 * h)

    def loss(a):
        given = {"velocity": TEACHER, "pairs": LAW, "warmup": warmup, "tangent": plain}
        return LOSSES[name](curved(a), x, jax.random.key(1), **given)[0].sum()

    np.testing.assert_allclose(jax.jit(loss)(value), jnp.sum(g**2), rtol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(value), -2 * jnp.sum(by_parameter * g), rtol=1e-7)


@pytest.mark.usefixtures("float64")
def test_at_first_it_is_flow_matching_towards_the_teacher():
    """Without its own derivative, and on the diagonal with or without it."""
    x, key, u = jnp.asarray(X), jax.random.key(1), curved(0.7)

    def all_at(t):
        return lambda key, n: (jnp.full(n, t), jnp.full(n, t), jnp.ones(n))

    loss, _ = align_eulerian(u, x, key, velocity=TEACHER, pairs=all_at(0.6), tangent=plain)
    z = jax.random.normal(jax.random.split(key)[1], x.shape)
    x_t = interpolate(linear, x, z, jnp.full(len(x), 0.6))
    t = jnp.full(len(x), 0.6)
    np.testing.assert_allclose(loss, jnp.sum((u(x_t, t, t) - TEACHER(x_t, t)) ** 2, axis=1), rtol=1e-12)
    # The pair's own velocity for the teacher's makes it rectified flow.
    pair = lambda x_t, t: (x_t - x) / expand(t, x)
    ours, _ = align_eulerian(u, x, key, velocity=pair, pairs=all_at(0.6), tangent=plain)
    theirs, _ = rectified_flow(lambda x_t, t: u(x_t, t, t), x, key, times=constant_times(0.6))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_network_is_called_once_and_one_program_serves_the_warmup():
    x, calls, traces = jnp.asarray(X, jnp.float32), [], []

    def u(x_t, t, s):
        calls.append(t)
        return jnp.sin(x_t)

    @jax.jit
    def gradient(step):
        traces.append(step)

        def objective(a):
            warmup = curricula.tangent_warmup(step, steps=10)
            net = lambda x_t, t, s: a * u(x_t, t, s)
            return align_eulerian(net, x, jax.random.key(1), velocity=TEACHER, pairs=LAW, warmup=warmup)[0].sum()

        return jax.grad(objective)(0.5)

    gradients = [float(gradient(jnp.asarray(step))) for step in (0, 5, 10, 20)]
    assert len(traces) == len(calls) == 1
    assert len(set(gradients)) == 3
    assert gradients[2] == gradients[3]
