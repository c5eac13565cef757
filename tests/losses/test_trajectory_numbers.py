"""CTM, LCM and PCM against numbers of their authors' code."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, conversions, distances, jumps, pairs, paths, steps, trajectory_consistency
from losses.types import Net
from tests.losses.quadrature import signs
from tests.oracles import Gaussian, gaussian_flow_map, gaussian_velocity

SD = paths.scaled_linear_beta()
GRID_40 = pairs.karras_grid(40)


def fixed(*times: Any) -> Any:
    """The law that always answers these times."""
    return lambda key, n: tuple(jnp.broadcast_to(jnp.asarray(t, float), (n,)) for t in times)


def column(t: jax.Array) -> jax.Array:
    return t[:, None]


def ctm_denoiser(k: Any, x: jax.Array, t: jax.Array, s: jax.Array | None = None) -> jax.Array:
    """CTM's inner function over a network that says k c_in x + 0.1 k tanh(ln(s) / 4)."""
    total = column(t**2 + 0.25)
    F = k * x / jnp.sqrt(total) + (0.0 if s is None else 0.1 * k * jnp.tanh(column(jnp.log(s)) / 4))
    return 0.25 / total * x + column(t) * 0.5 / jnp.sqrt(total) * F


def ctm_jump(k: Any, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
    return column(s / t) * x + column(1 - s / t) * ctm_denoiser(k, x, t, s)


@pytest.mark.usefixtures("float64")
def test_ctm_against_its_code():
    t, u, s = (GRID_40[39 - np.asarray(i)] for i in ([0, 10, 25, 35], [3, 13, 28, 38], [39, 20, 28, 38]))
    x, z = jnp.full((4, 1), 0.3), jnp.full((4, 1), -0.7)
    velocity = lambda x, t: (x - ctm_denoiser(0.5, x, t)) / column(t)
    step = partial(steps.heun_on_grid, velocity=velocity, grid=GRID_40)
    ingredients: dict[str, Any] = {
        "triples": fixed(t, u, s), "step": step, "project": partial(ctm_jump, 0.28), "end": 0.002,
        "coupling": lambda key, x: (x, z),
    }  # fmt: skip

    @jax.jit
    def run(k):
        pair = jumps(partial(ctm_jump, k), x, jax.random.key(0), **ingredients)
        objective = lambda k: trajectory_consistency(partial(ctm_jump, k), x, jax.random.key(0), **ingredients)[
            0
        ].mean()
        return step(paths.edm, x, z, jnp.asarray(t), jnp.asarray(u)), pair, jax.value_and_grad(objective)(k)

    x_u, pair, (mse, gradient) = run(0.3)
    np.testing.assert_allclose(x_u[:, 0], [-36.18388905, -6.71040012, -0.11983766, 0.29157284], atol=6e-9)
    estimate, goal = pair.estimate[:, 0], pair.goal[:, 0]
    np.testing.assert_allclose(estimate, [-0.12171413, -0.18738620, -0.09854659, 0.28969712], atol=6e-9)
    np.testing.assert_allclose(goal, [-0.12307358, -0.18889106, -0.11447462, 0.29179647], atol=6e-9)
    np.testing.assert_allclose(mse, 6.555559e-05, rtol=1e-6)
    # With the gradient stopped at the input of the last jump this would be that of the first example alone.
    np.testing.assert_allclose(gradient, -6.397733e-04, rtol=1e-6)


def heun_error(h: int, u: int) -> float:
    """E[(f(x_t) - f(x_u))^2] for f the exact map to 0.002 of N(0, 0.5^2), x_u by h steps from entry u + h to u."""
    variance, product = 0.25 + GRID_40**2, 1.0
    for r, q in ((k, k - 1) for k in range(u + h, u, -1)):
        step = GRID_40[q] - GRID_40[r]
        v = GRID_40[r] / variance[r]
        product *= 1 + step * (v + GRID_40[q] / variance[q] * (1 + step * v)) / 2
    return variance[0] * (product * np.sqrt(variance[u + h] / variance[u]) - 1) ** 2


@pytest.mark.usefixtures("float64")
def test_heun_is_all_that_is_left_of_ctms_loss_at_the_exact_jump():
    """Whatever s. Four numbers of steps in one batch: whoever has fewer waits."""
    data = Gaussian(0.0, 0.5)
    exact = partial(gaussian_flow_map, data, paths.edm)
    velocity = partial(gaussian_velocity, data, paths.edm)
    h, u, s = np.asarray([(1, 0, 0), (1, 20, 3), (5, 30, 30), (5, 2, 0), (20, 8, 4), (38, 1, 1), (38, 0, 0)]).T
    nodes, n = signs(data), len(h)
    x, z = jnp.repeat(nodes.x, n, axis=0), jnp.repeat(nodes.z, n, axis=0)

    @jax.jit
    def run():
        loss, _ = trajectory_consistency(
            exact, x, jax.random.key(0), triples=fixed(*(np.tile(GRID_40[i], 4) for i in (u + h, u, s))),
            step=partial(steps.heun_on_grid, velocity=velocity, grid=GRID_40),
            project=exact, end=0.002, coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return loss.reshape(4, n).mean(axis=0)

    np.testing.assert_allclose(run(), [heun_error(*pair) for pair in zip(h, u, strict=True)], rtol=1e-6)


@pytest.mark.parametrize(("h", "batch_of_the_code"), [(1, 1.14e-7), (5, 2.47e-6), (20, 1.58e-5), (38, 2.48e-5)])
def test_heun_error_under_the_law_is_that_of_the_code(h, batch_of_the_code):
    """One batch of about 64 there, of a heavy tail; here the expectation: 0.70e-7, 1.66e-6, 1.62e-5, 2.39e-5."""
    errors = np.asarray([heun_error(h, u) for u in range(40 - h)])
    spread = np.sqrt(3 * np.mean(errors**2) - np.mean(errors) ** 2)  # x_t is normal: its fourth moment is 3
    assert abs(batch_of_the_code - errors.mean()) < 4 * spread / np.sqrt(64)
    assert spread < 5 * errors.mean()


ALPHA_BAR = 3e-6
"""Relative error of the authors' table of alpha^2, which they multiply up in float32; ours is from float64."""


def from_noise(scale: float) -> Net:
    """Data prediction of a network that says the noise is scale x."""
    return lambda x, t: conversions.from_z(SD, x, scale * x, t).x


LCM_INPUTS: dict[str, Any] = {
    "step": partial(steps.ddim, denoiser=lambda x, t: 8.0 * from_noise(0.9)(x, t) - 7.0 * from_noise(0.8)(x, t)),
    "path": SD,
    "coupling": lambda key, x: (x, jnp.full_like(x, -0.7)),
}  # fmt: skip
LCM_T, LCM_U = np.asarray([19.0, 259.0, 499.0, 999.0]), np.asarray([0.0, 239.0, 479.0, 979.0])


@pytest.mark.usefixtures("float64")
def test_lcm_against_its_code():
    seen = []

    def f(scale, x, t):
        c_skip, c_out = 0.25 / ((10 * t) ** 2 + 0.25), 10 * t / jnp.sqrt((10 * t) ** 2 + 0.25)
        return column(c_skip) * x + column(c_out) * from_noise(scale)(x, t)

    def distance(a, b):
        seen.append((a, b))
        return distances.elementwise_pseudo_huber(a, b)

    @jax.jit
    def run(x):
        loss, _ = consistency(
            partial(f, 0.85), x, jax.random.key(0), target=partial(f, 0.84), distance=distance,
            pairs=fixed(LCM_T, LCM_U, 1.0), **LCM_INPUTS,
        )  # fmt: skip
        return loss.mean(), *seen.pop()

    x, z, t, u = jnp.full((4, 1), 0.3), jnp.full((4, 1), -0.7), jnp.asarray(LCM_T), jnp.asarray(LCM_U)
    states = paths.interpolate(SD, x, z, t), LCM_INPUTS["step"](SD, x, z, t, u)
    golden = ([0.20404840, -0.16524939, -0.43684718, -0.67788762], [0.17143887, -0.15790887, -0.41787996, -0.62611008])
    for state, of_the_code in zip(states, golden, strict=True):
        np.testing.assert_allclose(state[:, 0], of_the_code, rtol=ALPHA_BAR)

    huber, prediction, goal = run(x)
    prediction, goal = prediction[:, 0], goal[:, 0]
    np.testing.assert_allclose(prediction, [0.18256593, -0.10252050, -0.23012353, -1.50922811], rtol=ALPHA_BAR)
    np.testing.assert_allclose(goal, [0.17143887, -0.10131462, -0.22678754, -1.32304358], rtol=ALPHA_BAR)
    # A difference of numbers that are up to fifteen times as large.
    np.testing.assert_allclose(jnp.mean((prediction - goal) ** 2), 0.0087002683, rtol=1e-5)
    np.testing.assert_allclose(huber, 0.0496020839, rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_pcm_against_its_code():
    """With the edges of 50 steps and 4 phases, which `triples.pcm` refuses."""
    ingredients: dict[str, Any] = {
        "triples": fixed(LCM_T, LCM_U, [0.0, 239.0, 239.0, 739.0]),
        "target": conversions.denoiser_to_flow_map(SD, from_noise(0.84)),
    }
    student, x = conversions.denoiser_to_flow_map(SD, from_noise(0.85)), jnp.full((4, 1), 0.3)
    run = jax.jit(
        lambda x, key: (
            jumps(student, x, key, **ingredients, **LCM_INPUTS),
            trajectory_consistency(
                student, x, key, distance=distances.elementwise_pseudo_huber, **ingredients, **LCM_INPUTS
            ),
        )
    )
    pair, (loss, metrics) = run(x, jax.random.key(0))
    estimate, goal = pair.estimate[:, 0], pair.goal[:, 0]
    np.testing.assert_allclose(estimate, [0.18754423, -0.16325269, -0.39755506, -0.93198002], rtol=ALPHA_BAR)
    np.testing.assert_allclose(goal, [0.17143887, -0.15790887, -0.38350933, -0.83716995], rtol=ALPHA_BAR)
    np.testing.assert_allclose(loss.mean(), 0.0316173881, rtol=1e-5)
    np.testing.assert_array_equal(metrics["t"], LCM_T)
