"""sCM's recipe at any network: tangent, warmup, gradient and learned weight against what the algorithm says."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import continuous_consistency, curricula, paths, rectified_flow, tangents
from models import MLP, DiT, ddpmpp

LIMITS = (1e-3, 0.6, 1.1, 1.5645)
"""Angles from next to the data to the published t_max, arctan(80 / 0.5)."""
PATHS = {sigma_data: paths.scaled(paths.trig, sigma_data) for sigma_data in (0.5, 1.0)}


def plain(g: jax.Array) -> jax.Array:
    """No bound on the tangent."""
    return g


def random_net(key: jax.Array, elements: int) -> tuple[Any, Any]:
    """A smooth F(params)(y, t) and its parameters, float64."""
    keys = jax.random.split(key, 3)
    params = {
        "in": jax.random.normal(keys[0], (elements, 16)),
        "time": jax.random.normal(keys[1], (16,)),
        "out": jax.random.normal(keys[2], (16, elements)) / 4,
        "log_weight": jnp.asarray([0.3, -0.4]),
    }

    def F(params):
        return lambda y, t: jnp.tanh(y @ params["in"] + t[:, None] * params["time"]) @ params["out"]

    return F, params


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma_data", PATHS)
@pytest.mark.parametrize("distilled", [False, True])
def test_tangent_is_cos_t_times_the_derivative_of_f(distilled, sigma_data):
    """Against central differences of f along the direction (v, 1), at a random network."""
    make, params = random_net(jax.random.key(0), 3)
    F = make(params)
    x, z = jax.random.normal(jax.random.key(1), (2, 4, 3))
    t = jnp.asarray(LIMITS)

    def teacher(x_t, t):
        return jnp.sin(x_t + t[:, None])

    def f(x_t, t):
        time = t[:, None]
        return jnp.cos(time) * x_t - sigma_data * jnp.sin(time) * F(x_t / sigma_data, t)

    @jax.jit
    def exact():
        x_t = jnp.cos(t)[:, None] * x + sigma_data * jnp.sin(t)[:, None] * z
        v = teacher(x_t, t) if distilled else sigma_data * jnp.cos(t)[:, None] * z - jnp.sin(t)[:, None] * x
        h = 1e-5
        return jnp.cos(t)[:, None] * (f(x_t + h * v, t + h) - f(x_t - h * v, t - h)) / (2 * h)

    @jax.jit
    def ours():
        seen = []

        def tangent(g):
            seen.append(g)
            return g

        _, metrics = continuous_consistency(
            F, x, jax.random.key(0), times=lambda key, n: t, tangent=tangent,
            velocity=teacher if distilled else None, sigma_data=sigma_data, coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return seen[0], metrics

    expected, (g, metrics) = exact(), ours()
    np.testing.assert_allclose(g, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(metrics["tangent"], jnp.linalg.norm(expected, axis=1), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(metrics["distance"], jnp.mean(expected**2, axis=1), rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma_data", PATHS)
def test_without_warmup_it_is_the_diffusion_loss(sigma_data):
    """At r = 0 the goal is F - cos^2 (sigma_data F - v), which makes it flow matching.

    The gradient of |F - goal|^2 / d is cos^2(t) / (sigma_data d) times that of |sigma_data F - v|^2.
    """
    make, params = random_net(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (5, 3))

    @jax.jit
    def gradients(t):
        times = lambda key, n: jnp.full(n, t)

        def ours(params):
            loss, _ = continuous_consistency(
                make(params), x, jax.random.key(2), times=times, warmup=0.0, tangent=plain, sigma_data=sigma_data
            )
            return loss.sum()

        def diffusion(params):
            net = lambda x_t, t: sigma_data * make(params)(x_t / sigma_data, t)
            return rectified_flow(net, x, jax.random.key(2), times=times, path=PATHS[sigma_data])[0].sum()

        return jax.grad(ours)(params), jax.grad(diffusion)(params)

    for t in LIMITS:
        got, expected = gradients(t)
        factor = np.cos(t) ** 2 / (sigma_data * 3)
        for name in ("in", "time", "out"):
            np.testing.assert_allclose(got[name], factor * expected[name], rtol=1e-8, atol=1e-13, err_msg=name)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("warmup", [0.4, 1.0])
def test_gradient_sees_the_network_once(warmup):
    """It is that of exp(w)/d |F - goal|^2 - w with a goal computed beforehand, so none leaks through the derivative."""
    sigma_data, c = 0.7, 0.1
    make, params = random_net(jax.random.key(0), 3)
    x, z = jax.random.normal(jax.random.key(1), (2, 4, 3))
    t = jnp.asarray([0.05, 0.6, 1.1, 1.5])
    cos, sin = jnp.cos(t)[:, None], jnp.sin(t)[:, None]
    x_t, v = cos * x + sigma_data * sin * z, sigma_data * cos * z - sin * x

    # dF/dt along the trajectory by central differences of the network.
    h = 1e-5
    ahead, behind = (make(params)((x_t + step * v) / sigma_data, t + step) for step in (h, -h))
    F_t = make(params)(x_t / sigma_data, t)
    g = -(cos**2) * (sigma_data * F_t - v)
    g -= warmup * cos * sin * (x_t + sigma_data * (ahead - behind) / (2 * h))
    goal = F_t + g / (jnp.linalg.norm(g, axis=1, keepdims=True) + c)

    def log_weight(params, t):
        return params["log_weight"][0] + params["log_weight"][1] * t

    @jax.value_and_grad
    def by_hand(params):
        w = log_weight(params, t)
        error = jnp.sum((make(params)(x_t / sigma_data, t) - goal) ** 2, axis=1)
        return jnp.sum(jnp.exp(w) / 3 * error - w)

    @jax.jit
    @jax.value_and_grad
    def ours(params):
        loss, _ = continuous_consistency(
            make(params), x, jax.random.key(0), times=lambda key, n: t, warmup=warmup, sigma_data=sigma_data,
            log_weight=partial(log_weight, params), coupling=lambda key, x: (x, z),
            tangent=partial(tangents.normalised, c=c),
        )  # fmt: skip
        return loss.sum()

    (value, gradient), (expected_value, expected) = ours(params), by_hand(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-7)
    for name in params:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.usefixtures("float64")
def test_learned_weight_makes_every_level_count_the_same():
    """At w = -ln(mean square) the gradient in w is 0 and the weighted loss, w itself apart, is 1."""
    make, params = random_net(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (4, 3))

    @jax.jit
    def run(w):
        def objective(w):
            loss, metrics = continuous_consistency(
                make(params), x, jax.random.key(2), times=lambda key, n: jnp.asarray(LIMITS), log_weight=lambda t: w
            )
            return loss.sum(), (loss, metrics["distance"])

        return jax.grad(objective, has_aux=True)(w)

    _, (unweighted, mean_square) = run(jnp.zeros(4))
    np.testing.assert_allclose(unweighted, mean_square, rtol=1e-12)
    best = -jnp.log(mean_square)
    gradient, (loss, _) = run(best)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    np.testing.assert_allclose(loss + best, 1, rtol=1e-12)
    np.testing.assert_allclose(run(best + 0.1)[0], np.expm1(0.1), rtol=1e-9)


def test_network_is_called_once_so_dropout_is_shared():
    x = jax.random.normal(jax.random.key(0), (8, 16))
    calls = []

    def F(y, t):
        calls.append(t)
        return jnp.where(jax.random.bernoulli(jax.random.key(7), 0.5, y.shape), jnp.sin(y), 0.0)

    loss = lambda a: continuous_consistency(lambda y, t: a * F(y, t), x, jax.random.key(1))[0].sum()
    jax.eval_shape(jax.grad(loss), 1.0)
    assert len(calls) == 1


def test_half_precision_network():
    x = jnp.ones((4, 3), jnp.bfloat16)
    loss, metrics = jax.jit(partial(continuous_consistency, lambda y, t: y.astype(jnp.bfloat16)))(x, jax.random.key(0))
    assert {loss.dtype, *(value.dtype for value in metrics.values())} == {jnp.dtype(jnp.float32)}
    assert jnp.isfinite(loss).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("F", [lambda y, t: y.mean(axis=1, keepdims=True), lambda y, t: y[:1], lambda y, t: t])
def test_wrong_output_shape(F):
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        jax.eval_shape(partial(continuous_consistency, F), jnp.ones((4, 3)), jax.random.key(0))


def test_one_program_for_the_whole_warmup():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    traces = []

    @jax.jit
    def gradient(step):
        traces.append(step)

        def objective(a):
            warmup = curricula.tangent_warmup(step, steps=10)
            return continuous_consistency(lambda y, t: a * jnp.sin(y), x, jax.random.key(1), warmup=warmup)[0].sum()

        return jax.grad(objective)(0.5)

    gradients = [float(gradient(jnp.asarray(step))) for step in (0, 5, 10, 20)]
    assert len(traces) == 1
    assert np.isfinite(gradients).all()
    assert len(set(gradients)) == 3
    assert gradients[2] == gradients[3]


BACKBONES = {
    "mlp": (MLP(width=16, depth=1, dropout=0.2), (3,)),
    "dit": (DiT(patch=2, width=16, depth=1, heads=2, double_norm=True, dropout=0.2), (4, 4, 1)),
    # One resolution: attention sits at the bottom, and every kind of layer but resampling is there.
    "unet": (ddpmpp(channels=8, multipliers=(1,), blocks=1, attention_resolutions=(), dropout=0.2), (4, 4, 1)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_the_derivative(name):
    """Compiled gradients in float32 are finite at both ends of time, dropout on, for every parameter."""
    module, shape = BACKBONES[name]
    x = 0.5 * jax.random.normal(jax.random.key(0), (len(LIMITS), *shape))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(len(x)))
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(0.2 * generator.standard_normal(a.shape), a.dtype), shapes)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def step(params):
        def objective(params):
            def F(y, t):
                return module.apply(params, y, t, train=True, rngs={"dropout": jax.random.key(2)})

            loss, metrics = continuous_consistency(
                F, x, jax.random.key(1), times=lambda key, n: jnp.asarray(LIMITS), tangent=tangents.clipped
            )
            return loss.mean(), metrics

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, metrics), gradient = step(params)
    assert loss > 0
    assert jnp.isfinite(metrics["tangent"]).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.any(leaf != 0), path
