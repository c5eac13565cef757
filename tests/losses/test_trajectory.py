"""Trajectory consistency at its exact solutions, and against numbers of the authors' code.

A jump is learned from a solver's steps, so what is learned is the solver and not the ODE. For Gaussian data a step of
DDIM multiplies x_t - alpha_t m by D = (alpha_u alpha_t std^2 + sigma_u sigma_t) / V_t. With P(t) the product of all D
from t down, the maps alpha_s m + P(t) / P(s) (x_t - alpha_t m) have no loss under LCM's, TCD's and PCM's laws.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, conversions, distances, jumps, pairs, paths, steps, trajectory_consistency, triples
from losses.types import FlowMap, Net
from tests.losses.quadrature import signs
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_flow_map, gaussian_velocity

SD = paths.scaled_linear_beta()
GRID_40 = pairs.karras_grid(40)


def fixed(*times: Any) -> Any:
    """The law that always answers these times."""
    return lambda key, n: tuple(jnp.broadcast_to(jnp.asarray(t, float), (n,)) for t in times)


def column(t: jax.Array) -> jax.Array:
    return t[:, None]


# ---- Fixed points ----------------------------------------------------------------------------------------------------


def solver_product(std: float, grid: np.ndarray) -> np.ndarray:
    """P at the entries of a grid, from the table's definition."""
    alpha_squared = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[grid.astype(int)]
    alpha, sigma = np.sqrt(alpha_squared), np.sqrt(1 - alpha_squared)
    shrink = (alpha[:-1] * alpha[1:] * std**2 + sigma[:-1] * sigma[1:]) / (alpha[1:] ** 2 * std**2 + sigma[1:] ** 2)
    return np.cumprod(np.append(1.0, shrink))


@pytest.mark.parametrize(
    ("std", "golden"),
    [
        (0.5, [0.47703472, 0.48595391, 0.53605536, 0.67341279, 0.95531298]),
        (1.0, [0.97290238, 0.97402891, 0.97804264, 0.98434339, 0.99454585]),
        (2.0, [1.94387682, 1.82730324, 1.46305910, 1.15342868, 1.00501597]),
    ],
)
def test_products_of_the_solver(std, golden):
    product = solver_product(std, pairs.ddim_grid(50))
    np.testing.assert_allclose(product[[50, 38, 25, 13, 1]], golden, rtol=1e-7)
    phases = np.asarray([999, 739, 499, 239, 0])
    table = dict(zip(pairs.ddim_grid(50).astype(int), product, strict=True))
    phase_golden = {
        0.5: [0.97809992, 0.90982343, 0.77595398, 0.69083396],
        1.0: [0.99864984, 0.99608922, 0.99299023, 0.98494690],
    }
    if std in phase_golden:
        got = [table[t] / table[s] for t, s in pairwise(phases)]
        np.testing.assert_allclose(got, phase_golden[std], rtol=1e-7)
    if std == 0.5:
        np.testing.assert_allclose(solver_product(std, pairs.ddim_grid(200))[-1], 0.49509626, rtol=1e-7)


def product_map(data: Gaussian, grid: np.ndarray, power: Any = 1.0) -> FlowMap:
    product = jnp.asarray(solver_product(data.std, grid)) ** power

    def flow_map(x_t, t, s):
        ratio = jnp.interp(t, jnp.asarray(grid), product) / jnp.interp(s, jnp.asarray(grid), product)
        alpha_t, alpha_s = SD.alpha(t), SD.alpha(s)
        return column(alpha_s * data.mean) + column(ratio) * (x_t - column(alpha_t * data.mean))

    return flow_map


def guided(mean: float, std: float, w: float) -> Net:
    """(1 + w) D_class - w D_all, with a class N(mean, std^2) among N(0, std^2)."""
    of_class, of_all = (partial(gaussian_denoiser, Gaussian(m, std), SD) for m in (mean, 0.0))
    return lambda x_t, t: (1 + w) * of_class(x_t, t) - w * of_all(x_t, t)


MU, W = 0.3, 7.0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["lcm", "tcd", "pcm"])
def test_the_product_of_a_guided_solver_is_the_fixed_point(name):
    """Guidance with w moves the mean to (1 + w) mu, and of all means and widths this one alone has no loss."""
    grid = pairs.ddim_grid(40)
    x = MU + 0.5 * jax.random.normal(jax.random.key(0), (64, 2))
    step = partial(steps.ddim, denoiser=guided(MU, 0.5, W))

    @jax.jit
    def loss(mean, power, share):
        def flow_map(x_t, t, s):
            # Beside the solution: of another mean, a little too narrow, right for another s.
            return product_map(Gaussian(mean, 0.5), grid, power)(x_t, t, s * share)

        if name == "lcm":
            f = lambda x_t, t: flow_map(x_t, t, jnp.zeros_like(t))
            value, _ = consistency(
                f, x, jax.random.key(1), pairs=partial(pairs.lcm, grid=grid), step=step, path=SD, distance=distances.l2
            )
            return value.max()
        law = partial(triples.tcd, grid=grid) if name == "tcd" else partial(triples.pcm, grid=grid, phases=4)
        value, _ = trajectory_consistency(flow_map, x, jax.random.key(1), triples=law, step=step, path=SD)
        return value.max()

    exact = (1 + W) * MU
    assert loss(exact, 1.0, 1.0) < 1e-24
    assert loss(MU, 1.0, 1.0) > 1e-4
    assert loss(exact, 1.1, 1.0) > 1e-6
    if name != "lcm":  # whose s is 0
        assert loss(exact, 1.0, 0.9) > 1e-4


@pytest.mark.usefixtures("float64")
def test_the_ode_is_not_that_fixed_point():
    x = 0.5 * jax.random.normal(jax.random.key(0), (64, 2))
    data, grid = Gaussian(0.0, 0.5), pairs.ddim_grid(50)
    step = partial(steps.ddim, denoiser=partial(gaussian_denoiser, data, SD))
    loss = jax.jit(
        lambda flow_map, key: trajectory_consistency(
            flow_map, x, key, triples=partial(triples.tcd, grid=grid), step=step, path=SD
        )[0].max(),
        static_argnums=0,
    )
    assert loss(partial(gaussian_flow_map, data, SD), jax.random.key(1)) > 1e-5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "cosine"])
def test_exact_jumps_along_exact_steps_meet(name):
    """On any path, at s and projected; and not with a goal of other data."""
    path, low, high = PATHS[name]
    data = Gaussian()
    x = data.mean + data.std * jax.random.normal(jax.random.key(0), (8, 3))
    exact = partial(gaussian_flow_map, data, path)
    t, u, s = (jnp.linspace(low, end, 8) for end in (high, 0.7 * high, 0.3 * high))
    s = s.at[:2].set(low)

    def step(path, x, z, t, u):
        return exact(paths.interpolate(path, x, z, t), t, u)

    both = jax.jit(lambda key, **kw: [
        trajectory_consistency(
            exact, x, key, triples=lambda key, n: (t + 0.01, u, s), step=step, path=path, end=low, **kw, **projection
        )[0]
        for projection in ({}, {"project": exact})
    ])  # fmt: skip
    for loss in both(jax.random.key(1)):
        np.testing.assert_allclose(loss, 0, atol=1e-24)
    other = partial(gaussian_flow_map, Gaussian(0.5, 0.7), path)
    loss, _ = trajectory_consistency(
        exact, x, jax.random.key(1), triples=lambda key, n: (t + 0.01, u, s), step=step, path=path, target=other
    )
    np.testing.assert_array_equal(loss > 1e-6, u > s)  # where u = s the target is not asked


# ---- Numbers of the authors' code ------------------------------------------------------------------------------------


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


# ---- Whose gradient, and who is asked --------------------------------------------------------------------------------


def test_gradients_flow_through_the_input_of_the_projection_and_nowhere_else():
    x, z = jax.random.normal(jax.random.key(0), (2, 8, 3))

    def objective(student, target, teacher):
        loss, _ = trajectory_consistency(
            lambda x, t, s: student * x, x, jax.random.key(1), triples=fixed(2.0, 1.0, 0.5),
            step=lambda path, x, z, t, u: teacher * (x + column(u) * z), target=lambda x, t, s: target * x,
            project=lambda x, t, s: 3.0 * x + column(t) - column(s), end=0.1, coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return loss.sum()

    value, (student, target, teacher) = jax.jit(jax.value_and_grad(objective, (0, 1, 2)))(2.0, 1.5, 1.1)
    x_t, x_u = x + 2 * z, 1.1 * (x + z)
    difference = (3 * 2 * x_t + 0.4) - (3 * 1.5 * x_u + 0.4)
    np.testing.assert_allclose(value, jnp.sum(difference**2), rtol=1e-5)
    np.testing.assert_allclose(student, jnp.sum(2 * difference * 3 * x_t), rtol=1e-5)
    assert target == 0
    assert teacher == 0


def test_without_a_target_the_student_is_its_own_and_is_stopped():
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def objective(params, target):
        loss, _ = trajectory_consistency(
            lambda x, t, s: params * x, x, jax.random.key(1), triples=fixed(2.0, 1.0, 0.5), step=steps.same_noise,
            target=target,
        )  # fmt: skip
        return loss.sum()

    own, given = jax.jit(lambda a: [jax.grad(objective)(a, f) for f in (None, lambda x, t, s: 2.0 * x)])(2.0)
    np.testing.assert_array_equal(own, given)


def test_nobody_is_asked_to_go_nowhere():
    """Where u = s the goal is x_u, and where s is the end both stay: no jump from a time to itself, and no ln 0."""
    asked = []

    def jump(name):
        def flow_map(x, t, s):
            asked.append((name, np.asarray(t), np.asarray(s)))
            return 10.0 * x

        return flow_map

    x = jnp.ones((3, 2))
    pair = jumps(
        jump("student"), x, jax.random.key(0), triples=fixed(4.0, [2.0, 1.0, 0.5], [1.0, 1.0, 0.0]),
        step=lambda path, x, z, t, u: column(u) * x, target=jump("target"), project=jump("project"), end=0.0,
        coupling=lambda key, x: (x, jnp.zeros_like(x)),
    )  # fmt: skip
    assert [name for name, _, _ in asked] == ["student", "target", "project", "project"]
    assert all((t > s).all() for _, t, s in asked), asked
    np.testing.assert_array_equal(pair.estimate[:, 0], [100, 100, 10])
    np.testing.assert_array_equal(pair.goal[:, 0], [200, 10, 5])


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("wrong", ["flow_map", "target", "project"])
def test_wrong_output_shape(wrong):
    maps: dict[str, Any] = {name: (lambda x, t, s: x) for name in ("flow_map", "target", "project")}
    maps[wrong] = lambda x, t, s: x.mean(axis=-1, keepdims=True)
    with pytest.raises(ValueError, match=r"\(4, 3\), got \(4, 1\)"):
        jax.eval_shape(
            lambda x, key: trajectory_consistency(
                maps.pop("flow_map"), x, key, triples=fixed(4.0, 2.0, 1.0), step=steps.same_noise, **maps
            ),
            jnp.ones((4, 3)),
            jax.random.key(0),
        )


def test_half_precision_network_on_images():
    x = jnp.ones((4, 2, 2, 1), jnp.bfloat16)
    half = lambda x, t, s: x.astype(jnp.bfloat16)
    law = partial(triples.ctm, grid=pairs.karras_grid(18), substeps=17)
    loss, _ = jax.eval_shape(
        partial(trajectory_consistency, half, triples=law, step=steps.same_noise, project=half, end=0.002),
        x,
        jax.random.key(0),
    )
    assert loss.dtype == jnp.float32
    assert loss.shape == (4,)
