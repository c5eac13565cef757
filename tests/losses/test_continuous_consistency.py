"""sCM at its exact solution: the tangent is 0 with the ODE's velocity, and 0 in the mean with a pair's own.

The consistency function of TrigFlow is f = cos(t) x_t - sigma_data sin(t) F(x_t / sigma_data, t), so every exact f has
an exact F. Tangents are recorded by the ingredient that bounds them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import continuous_consistency, paths, tangents
from losses.types import Net
from tests.losses.quadrature import Nodes, mixture, posterior_signs
from tests.oracles import (
    Gaussian,
    Mixture,
    constant_times,
    gaussian_consistency,
    gaussian_velocity,
    mixture_consistency,
    mixture_velocity,
)

LIMITS = (1e-3, 0.6, 1.1, 1.5645)
"""Angles from next to the data to the published t_max, arctan(80 / 0.5)."""
PATHS = {sigma_data: paths.scaled(paths.trig, sigma_data) for sigma_data in (0.5, 1.0)}


def raw(f: Net, sigma_data: float) -> Net:
    """F(y, t) of a consistency function f(x, t), y = x / sigma_data."""

    def F(y, t):
        x, time = sigma_data * y, paths.expand(t, y)
        return (jnp.cos(time) * x - f(x, t)) / (sigma_data * jnp.sin(time))

    return F


def plain(g: jax.Array) -> jax.Array:
    """No bound on the tangent."""
    return g


def tangent_of(F: Net, nodes: Nodes, t: float, **ingredients: Any) -> jax.Array:
    """The bounded tangent at every node."""
    bound = ingredients.pop("tangent", plain)

    @jax.jit
    def run():
        seen = []

        def tangent(g):
            seen.append(bound(g))
            return seen[0]

        continuous_consistency(
            F, nodes.x, jax.random.key(0), times=constant_times(t), tangent=tangent, coupling=nodes.coupling,
            **ingredients,
        )  # fmt: skip
        return seen[0]

    return run()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sigma_data", PATHS)
@pytest.mark.parametrize("tangent", [plain, tangents.normalised], ids=["plain", "normalised"])
def test_exact_network_with_the_exact_teacher(sigma_data, tangent):
    """Gaussian images: tangent, loss and gradient are 0 at every point and angle."""
    data, path = Gaussian(), PATHS[sigma_data]
    x = data.mean + data.std * jax.random.normal(jax.random.key(0), (8, 2, 2, 1))
    t = jnp.tile(jnp.asarray(LIMITS), 2)
    F = raw(partial(gaussian_consistency, data, path), sigma_data)

    @jax.jit
    def run(params):
        def objective(params):
            def net(y, t):
                return F(y, t) + params[0] * y + params[1]

            loss, metrics = continuous_consistency(
                net, x, jax.random.key(1), times=lambda key, n: t, tangent=tangent, sigma_data=sigma_data,
                velocity=partial(gaussian_velocity, data, path),
            )  # fmt: skip
            return loss.sum(), metrics

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, metrics), gradient = run(jnp.zeros(2))
    np.testing.assert_allclose(metrics["tangent"], 0, atol=1e-12)
    assert loss < 1e-24 if tangent is plain else loss < 1e-22
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    (loss, metrics), gradient = run(jnp.asarray([0.1, 0.0]))
    assert (metrics["tangent"].reshape(2, 4)[:, :3] > 1e-2).all()  # at the last angle cos(t) is 0.006
    assert loss > 1e-4
    assert jnp.abs(gradient).max() > 1e-2


@pytest.mark.usefixtures("float64")
def test_exact_network_of_a_mixture_with_the_exact_teacher():
    data, path = Mixture(), PATHS[0.5]
    x = jnp.tile(jnp.linspace(-1.3, 1.2, 9), 4)[:, None]
    t = jnp.repeat(jnp.asarray(LIMITS), 9)
    F = raw(partial(mixture_consistency, data, path), 0.5)

    @jax.jit
    def run(params):
        def objective(params):
            loss, metrics = continuous_consistency(
                lambda y, t: F(y, t) + params * jnp.sin(y), x, jax.random.key(1), times=lambda key, n: t,
                velocity=partial(mixture_velocity, data, path), tangent=plain,
            )  # fmt: skip
            return loss.sum(), metrics

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, metrics), gradient = run(0.0)
    np.testing.assert_allclose(metrics["tangent"], 0, atol=1e-9)
    assert loss < 1e-18
    assert abs(gradient) < 1e-8
    (loss, metrics), gradient = run(0.1)
    assert (metrics["tangent"].reshape(4, 9).max(axis=1)[:3] > 0.01).all()
    assert abs(gradient) > 1e-2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("t", LIMITS)
@pytest.mark.parametrize("bound", [plain, tangents.normalised], ids=["plain", "normalised"])
def test_mean_tangent_of_training_vanishes_at_the_exact_network_alone(bound, t):
    """With the pair's own velocity g is not 0 but symmetric about 0, given x_t; normalising keeps that on Gaussians."""
    data, path = Gaussian(), PATHS[0.5]
    nodes = posterior_signs(data, path, jnp.linspace(-2.0, 2.5, 7), t)
    F = raw(partial(gaussian_consistency, data, path), 0.5)
    g = tangent_of(F, nodes, t, tangent=bound).reshape(7, 2)
    mean = g.mean(axis=1)
    # Against the size of what cancels.
    assert (jnp.abs(g) > 1e-3 * jnp.cos(t)).all()
    np.testing.assert_allclose(mean, 0, atol=1e-11)
    if t < 1.5:
        wrong = tangent_of(lambda y, t: F(y, t) + 0.1 * y, nodes, t, tangent=bound).reshape(7, 2).mean(axis=1)
        assert jnp.abs(wrong).max() > 5e-3


@pytest.mark.usefixtures("float64")
def test_mean_tangent_of_training_on_a_mixture():
    """Two modes: the mean tangent given x_t is 0; the normalised one is not, nor is its root."""
    data, path, t = Mixture(), PATHS[0.5], 0.8
    nodes = mixture(data, t, n=80, inner=24, path=path)
    F = raw(partial(mixture_consistency, data, path), 0.5)

    def mean_given_x_t(g):
        # Axes: component, point, node.
        weights, g = nodes.weights.reshape(2, 80, 24), g.reshape(2, 80, 24)
        return jnp.sum(weights * g, axis=(0, 2)) / jnp.sum(weights, axis=(0, 2))

    np.testing.assert_allclose(mean_given_x_t(tangent_of(F, nodes, t)), 0, atol=1e-9)
    assert jnp.abs(mean_given_x_t(tangent_of(F, nodes, t, tangent=tangents.normalised))).max() > 0.1
