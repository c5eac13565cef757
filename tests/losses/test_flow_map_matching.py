"""Flow map matching at the exact flow map of Gaussian data, beside it, and against finite differences."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import linear, pairs, triples
from losses.flow_map_matching import diagonal, eulerian, lagrangian, semigroup
from losses.paths import expand, interpolate
from tests.oracles import Gaussian, gaussian_average_velocity, gaussian_velocity

DATA, OTHER = Gaussian(0.3, 0.7), Gaussian(-0.2, 0.5)
ORDERED = partial(pairs.ordered, to_data=0.1, same=0.1)
RESIDUALS = {
    "lagrangian": partial(lagrangian, pairs=ORDERED),
    "eulerian": partial(eulerian, pairs=ORDERED),
    "midpoint": partial(semigroup, triples=partial(triples.midpoint, pairs=ORDERED)),
    "split": partial(semigroup, triples=partial(triples.split, pairs=ORDERED)),
}
WITH_TEACHER = ("lagrangian", "eulerian")


def perturbed(data: Gaussian, a: jax.Array, b: jax.Array):
    """The exact mean velocity, and something of x, t and s that is 0 on the diagonal."""

    def u(x_t, t, s):
        wave = jnp.sin(2 * x_t + expand(t + 3 * s, x_t))
        return gaussian_average_velocity(data, x_t, t, s) + expand(t - s, x_t) * (a * wave + b)

    return u


def images(dtype: Any) -> jax.Array:
    return DATA.mean + DATA.std * jax.random.normal(jax.random.key(0), (64, 2, 1), dtype)


def value_and_gradient(residual, data, amount, x, **ingredients):
    def objective(params):
        loss, metrics = residual(perturbed(data, *params), x, jax.random.key(1), **ingredients)
        return loss.mean(), metrics["distance"].max()

    return jax.jit(jax.value_and_grad(objective, has_aux=True))(jnp.asarray([amount, amount], x.dtype))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("name", "teacher"), [*((name, False) for name in RESIDUALS), *((name, True) for name in WITH_TEACHER)]
)
def test_exact_map(name, teacher, bits):
    """No residual and no gradient; both beside it. Its largest element is 1e-6 in float32, 1e-12 in float64."""
    with jax.enable_x64(bits == 64):
        x = images(jnp.float64 if bits == 64 else jnp.float32)
        rounding = 1e-12 if bits == 64 else 2e-6
        given = {"velocity": partial(gaussian_velocity, DATA, linear)} if teacher else {}
        run = lambda amount: value_and_gradient(RESIDUALS[name], DATA, amount, x, **given)
        (_, largest), gradient = run(0.0)
        assert largest < rounding**2
        np.testing.assert_allclose(gradient, 0, atol=10 * rounding)
        (_, largest), gradient = run(0.1)
        assert largest > 1e-3
        assert (jnp.abs(gradient) > 1e-3).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_map_of_other_data_is_right_by_itself_and_wrong_by_a_teacher(name):
    """The residual says that u is the flow map of its own diagonal; which velocity that is, other rows must say."""
    run = partial(value_and_gradient, RESIDUALS[name], OTHER, 0.0, images(jnp.float64))
    assert run()[0][1] < 1e-24
    (_, largest), gradient = run(velocity=partial(gaussian_velocity, DATA, linear))
    assert largest > 1e-2
    assert (jnp.abs(gradient) > 1e-3).all()


# ---- Derivatives -----------------------------------------------------------------------------------------------------


def curved(a):
    """A network with nothing special about it."""
    return lambda x_t, t, s: jnp.sin(a * x_t + expand(2 * t - s, x_t)) + a * expand(t * s, x_t) * x_t


def drawn(law, n, x):
    """x_t, t and s, as a residual draws them."""
    key_t, key_z = jax.random.split(jax.random.key(1))
    t, s, _ = law(key_t, n)
    return interpolate(linear, x, jax.random.normal(key_z, x.shape, x.dtype), t), t, s


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", WITH_TEACHER)
def test_derivatives_are_finite_differences(name):
    x, h, u = images(jnp.float64), 1e-5, curved(0.7)
    x_t, t, s = drawn(ORDERED, len(x), x)

    def X(x_t, t, s):
        return x_t - expand(t - s, x_t) * u(x_t, t, s)

    if name == "lagrangian":
        rate = (X(x_t, t, s + h) - X(x_t, t, s - h)) / (2 * h)
        x_s = X(x_t, t, s)
        residual = rate - u(x_s, s, s)
    else:
        v = u(x_t, t, t)
        residual = (X(x_t + h * v, t + h, s) - X(x_t - h * v, t - h, s)) / (2 * h)
    _, metrics = jax.jit(partial(RESIDUALS[name], u))(x, jax.random.key(1))
    np.testing.assert_allclose(metrics["distance"], (residual**2).sum(axis=(1, 2)), rtol=1e-7, atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RESIDUALS)
def test_gradients_flow_where_they_should(name):
    """By differences in the parameter, with all that is stopped held at the parameter's value."""
    x, h, value = images(jnp.float64), 1e-5, 0.7
    law = RESIDUALS[name].keywords.get("triples", ORDERED)
    x_t, t, middle = drawn(law, len(x), x)
    fixed = curved(value)
    if name in ("midpoint", "split"):
        t, q, s = law(jax.random.split(jax.random.key(1))[0], len(x))
    else:
        q, s = t, middle
    gap = expand(t - s, x)

    def rate(a, argument):
        """du/dt or du/ds of the network with parameter a."""
        inputs = [x_t, t, s]
        direction = (jnp.ones_like(t),)
        return jax.jvp(
            lambda r: curved(a)(*inputs[:argument], r, *inputs[argument + 1 :]), (inputs[argument],), direction
        )[1]

    def objective(a):
        u = curved(a)(x_t, t, s)
        if name == "lagrangian":
            goal = fixed(x_t - gap * fixed(x_t, t, s), s, s)
            return jnp.sum((u - gap * rate(a, 2) - goal) ** 2)
        if name == "eulerian":
            v = fixed(x_t, t, t)
            along = jax.jvp(lambda y: fixed(y, t, s), (x_t,), (v,))[1]
            return jnp.sum((u + gap * rate(a, 1) - v + gap * along) ** 2)
        first = fixed(x_t, t, q)
        second = fixed(x_t - expand(t - q, x) * first, q, s)
        whole = expand(jnp.maximum(t - s, 1e-12), x)
        goal = jnp.where(gap > 0, (expand(t - q, x) * first + expand(q - s, x) * second) / whole, second)
        return jnp.sum((u - goal) ** 2)

    by_differences = (objective(value + h) - objective(value - h)) / (2 * h)
    loss = jax.jit(lambda a: RESIDUALS[name](curved(a), x, jax.random.key(1))[0].sum())
    np.testing.assert_allclose(loss(value), objective(value), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss)(value), by_differences, rtol=1e-7)


@pytest.mark.parametrize("name", RESIDUALS)
def test_half_precision_network_and_metrics(name):
    x = jnp.ones((4, 3), jnp.bfloat16)
    u = lambda x_t, t, s: 0.5 * x_t.astype(jnp.bfloat16)
    loss, metrics = jax.jit(partial(RESIDUALS[name], u))(x, jax.random.key(0))
    assert {loss.dtype, *(value.dtype for value in metrics.values())} == {jnp.dtype(jnp.float32)}
    assert {value.shape for value in metrics.values()} == {(4,)}
    assert jnp.isfinite(loss).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", RESIDUALS)
def test_wrong_output_shape(name):
    with pytest.raises((TypeError, ValueError), match="shape"):
        jax.eval_shape(partial(RESIDUALS[name], lambda x_t, t, s: t), jnp.ones((4, 3)), jax.random.key(0))


def test_diagonal_is_the_velocity():
    x_t, t = jnp.ones((3, 2)), jnp.asarray([0.1, 0.5, 1.0])
    exact = gaussian_velocity(DATA, linear, x_t, t)
    np.testing.assert_allclose(diagonal(partial(gaussian_average_velocity, DATA))(x_t, t), exact, rtol=1e-5)
