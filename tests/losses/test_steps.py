"""Steps at the exact consistency function, with the exact teacher.

For Gaussian data every step multiplies x_t - m by a number, so what a step does is a number against a formula:
`steps.euler` on the EDM path shrinks by cos(theta_t - theta_s), theta = arctan(t / std), as `steps.same_noise` does in
the mean; `steps.heun` stretches by {1 + h/2 [l_t + l_s (1 + h l_t)]} / sqrt(V_s / V_t), l = t / V, h = s - t.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, distances, pairs, paths, steps, trajectory_consistency, triples
from losses.types import Step
from tests.losses.quadrature import Nodes, mixture, repeat, signs
from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_consistency,
    gaussian_denoiser,
    gaussian_flow_map,
    gaussian_velocity,
    mixture_consistency,
    mixture_velocity,
)

KARRAS = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}


def grid_of(points: int) -> jax.Array:
    return pairs.karras_time(jnp.arange(points), points, **KARRAS)


def solver(name: str, velocity: Any) -> Step:
    """A step by name; the first has no teacher."""
    if name == "same_noise":
        return steps.same_noise
    return partial({"euler": steps.euler, "heun": steps.heun}[name], velocity=velocity)


def intervals_times(nodes: Nodes, grid: jax.Array) -> tuple[Nodes, Any]:
    """Every interval of a grid once for every node, and the pair law that says so."""
    n = len(grid) - 1
    t, s = (jnp.tile(edge, len(nodes.x)) for edge in (grid[1:], grid[:-1]))
    return repeat(nodes, n), lambda key, batch: (t, s, jnp.ones_like(t))


# ---- Distillation ----------------------------------------------------------------------------------------------------


def exact_loss(step: str, grid: jax.Array, path: paths.Path = paths.edm) -> float:
    """Mean over intervals and data of the squared l2 at the exact f, an expectation: its differences are affine."""
    data = Gaussian()
    nodes, law = intervals_times(signs(data), grid)
    f = partial(gaussian_consistency, data, path, end=float(grid[0]))

    @jax.jit
    def mean():
        loss, _ = consistency(
            f, nodes.x, jax.random.key(0), pairs=law, step=solver(step, partial(gaussian_velocity, data, path)),
            distance=distances.l2, path=path, coupling=nodes.coupling,
        )  # fmt: skip
        return nodes.mean(loss)

    return float(mean())


ORDERS = {"same_noise": 2, "euler": 4, "heun": 6}
CARD = {
    "same_noise": [8.4e-3, 2.2e-3, 5.1e-4, 1.3e-4],
    "euler": [1.5e-4, 8.2e-6, 5.2e-7, 3.1e-8],
    "heun": [1.80e-5, 2.15e-7, 2.91e-9, 4.2e-11],
}
"""Monte-Carlo means over the elements that the first published code gave for N = 18, 36, 72, 144."""


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("step", ORDERS)
def test_loss_at_the_solution_falls_with_the_grid(step):
    """As h^2 for the pair of the same noise, h^4 for Euler and h^6 for Heun, since 80 / 0.002 are kept fixed."""
    got = [exact_loss(step, grid_of(points)) for points in (18, 36, 72, 144)]
    np.testing.assert_allclose(got, CARD[step], rtol=0.1)
    np.testing.assert_allclose(np.log(got[2] / got[3]) / np.log(143 / 71), ORDERS[step], atol=0.1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["cosine", "trigflow"])
@pytest.mark.parametrize("step", ORDERS)
def test_order_on_other_paths(step, name):
    path, low, high = PATHS[name]
    fine, finer = (exact_loss(step, jnp.linspace(low, high, n + 1), path) for n in (100, 200))
    np.testing.assert_allclose(np.log2(fine / finer), ORDERS[step], atol=0.06)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("step", ORDERS)
def test_order_on_a_mixture(step):
    """Squared distance at the exact f of two modes, one pair of levels: h^2, h^4 and h^6."""
    data, t = Mixture(), 0.6
    nodes = mixture(data, t, n=60, inner=1 if step != "same_noise" else 8)
    f = partial(mixture_consistency, data, paths.edm)

    @jax.jit
    def loss(h):
        law = lambda key, n: (jnp.full(n, t), jnp.full(n, t - h), jnp.ones(n))
        loss, _ = consistency(
            f, nodes.x, jax.random.key(0), pairs=law, step=solver(step, partial(mixture_velocity, data, paths.edm)),
            distance=distances.l2, coupling=nodes.coupling,
        )  # fmt: skip
        return nodes.mean(loss)

    sizes = [float(loss(h)) for h in (0.01, 0.005, 0.0025)]
    np.testing.assert_allclose(np.log2(np.divide(sizes[:-1], sizes[1:])), ORDERS[step], atol=0.15)


def fixed_point(step: str, grid: jax.Array, path: paths.Path, data: Gaussian) -> float:
    """Output standard deviation over that of the ODE, when every level is regressed on the one below.

    With f(x, t) = k x and the target x_s itself, each level's least squares gives k / k_s; f is their product.
    """
    nodes, law = intervals_times(signs(data), grid)
    n = len(grid) - 1

    @jax.jit
    def gradient(k):
        def objective(k):
            loss, _ = consistency(
                lambda x, t: jnp.tile(k, 4)[:, None] * x, nodes.x, jax.random.key(0), pairs=law, path=path,
                step=solver(step, partial(gaussian_velocity, data, path)), target=lambda x, s: x,
                distance=distances.l2, coupling=nodes.coupling,
            )  # fmt: skip
            return nodes.mean(loss)

        return jax.grad(objective)(k)

    at_0, at_1 = gradient(jnp.zeros(n)), gradient(jnp.ones(n))
    product = jnp.prod(at_0 / (at_0 - at_1))
    first, last = (jnp.hypot(path.alpha(t) * data.std, path.sigma(t)) for t in (grid[0], grid[-1]))
    return float(product * last / first)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("points", "golden"), [(11, 0.7528), (18, 0.8461), (41, 0.9314)])
def test_euler_distillation_ends_at_the_product_of_cosines(points, golden):
    """A perfect teacher does not help: it is the fixed point of training."""
    data, grid = Gaussian(0.0, 0.5), grid_of(points)
    got = fixed_point("euler", grid, paths.edm, data)
    np.testing.assert_allclose(got, np.prod(np.cos(np.diff(np.arctan(grid / data.std)))), rtol=1e-11)
    np.testing.assert_allclose(got, golden, atol=6e-5)
    np.testing.assert_allclose(fixed_point("same_noise", grid, paths.edm, data), got, rtol=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("points", "golden"), [(11, 1.1746), (18, 1.0553), (41, 1.0093)])
def test_heun_distillation_ends_a_little_too_wide(points, golden):
    data, grid = Gaussian(0.0, 0.5), np.asarray(grid_of(points))
    s, t = grid[:-1], grid[1:]
    variance_s, variance_t, h = 0.25 + s**2, 0.25 + t**2, s - t
    stretch = 1 + h / 2 * (t / variance_t + s / variance_s * (1 + h * t / variance_t))
    got = fixed_point("heun", jnp.asarray(grid), paths.edm, data)
    np.testing.assert_allclose(got, np.prod(stretch / np.sqrt(variance_s / variance_t)), rtol=1e-11)
    np.testing.assert_allclose(got, golden, atol=6e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_fixed_points_on_other_paths(name):
    """Same noise: cosines of arctan(sigma / (alpha std)) everywhere. Euler: 1 + h V'/(2V) a step, which differs."""
    path, low, high = PATHS[name]
    data, grid = Gaussian(0.0, 0.7), jnp.linspace(low, high, 9)
    alpha, sigma = path.alpha(grid) * data.std, path.sigma(grid)
    got = fixed_point("same_noise", grid, path, data)
    np.testing.assert_allclose(got, np.prod(np.cos(np.diff(np.arctan2(sigma, alpha)))), rtol=1e-11)

    e = 1e-5
    variance = lambda t: (np.asarray(path.alpha(t)) * data.std) ** 2 + np.asarray(path.sigma(t)) ** 2
    t, h = grid[1:], np.asarray(grid[:-1] - grid[1:])
    rate = (variance(t + e) - variance(t - e)) / (2 * e)
    expected = np.prod((1 + h * rate / (2 * variance(t))) * np.sqrt(variance(t) / variance(grid[:-1])))
    np.testing.assert_allclose(fixed_point("euler", grid, path, data), expected, rtol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("step", ["euler", "heun"])
def test_teacher_of_data_as_wide_as_the_noise_stands_still(step):
    """TrigFlow with s = sigma_data: the velocity is 0, one step from anywhere is exact."""
    path = PATHS["trigflow"].path
    got = fixed_point(step, jnp.asarray([0.01, 1.55]), path, Gaussian(0.0, 0.5))
    np.testing.assert_allclose(got, 1, rtol=1e-12)


def test_euler_reaches_the_data_and_asks_the_teacher_once():
    asked = []

    def velocity(x_t, t):
        asked.append(t)
        return (x_t - 0.3) / t[:, None]

    x, z, t = jnp.ones((4, 3)), jnp.full((4, 3), 2.0), jnp.full(4, 1.5)
    x_s = steps.euler(paths.edm, x, z, t, jnp.zeros(4), velocity=velocity)
    np.testing.assert_allclose(x_s, 0.3, rtol=1e-5)
    assert [float(t[0]) for t in asked] == [1.5]
    asked.clear()
    steps.heun(paths.edm, x, z, t, jnp.full(4, 0.5), velocity=velocity)
    assert [float(t[0]) for t in asked] == [1.5, 0.5]


# ---- Solvers of CTM, LCM, TCD and PCM --------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("points", "golden"), [(40, 0.50488494), (18, 0.52763308)])
def test_heun_down_the_whole_grid(points, golden):
    """From 80 to 0.002 on N(0, 0.5^2); the ODE goes to 0.49999423."""
    grid = pairs.karras_grid(points)
    velocity = partial(gaussian_velocity, Gaussian(0.0, 0.5), paths.edm)
    run = jax.jit(partial(steps.heun_on_grid, paths.edm, velocity=velocity, grid=grid))
    got = run(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.asarray([80.0]), jnp.asarray([0.002]))
    np.testing.assert_allclose(got, golden, atol=6e-9)


@pytest.mark.usefixtures("float64")
def test_heun_on_grid_takes_as_many_steps_as_the_longest_way_and_stops_everyone_at_its_own():
    grid = np.asarray([0.1, 0.3, 0.4, 0.8, 0.9])
    asked = []

    def velocity(x, t):
        asked.append(np.asarray(t))
        return -jnp.broadcast_to((t**2)[:, None], x.shape)

    x = jnp.zeros((3, 2))
    t, s = jnp.asarray([0.9, 0.8, 0.4]), jnp.asarray([0.3, 0.4, 0.4])
    with jax.disable_jit():
        got = steps.heun_on_grid(paths.edm, x, x, t, s, velocity=velocity, grid=grid)
    np.testing.assert_allclose(asked[::2], [[0.9, 0.8, 0.4], [0.8, 0.4, 0.4], [0.4, 0.4, 0.4]])
    np.testing.assert_allclose(asked[1::2], [[0.8, 0.4, 0.4], [0.4, 0.4, 0.4], [0.3, 0.4, 0.4]])

    def trapezoid(nodes):
        return -sum((b - a) * (a**2 + b**2) / 2 for a, b in pairwise(nodes))

    np.testing.assert_allclose(got[:, 0], [trapezoid([0.9, 0.8, 0.4, 0.3]), trapezoid([0.8, 0.4]), 0], rtol=1e-12)


def test_heun_on_grid_is_one_program_whose_gradient_stops_before_it():
    """The number of steps is traced, and a loss with such a loop in its target differentiates."""
    grid = pairs.karras_grid(6)
    law = partial(triples.ctm, grid=grid, substeps=5)
    x = jnp.ones((4, 2))

    traces: list[None] = []

    @jax.jit
    def gradient(a, key):
        traces.append(None)

        def objective(a):
            loss, _ = trajectory_consistency(
                lambda x, t, s: a * x, x, key, triples=law,
                step=partial(steps.heun_on_grid, velocity=lambda x, t: a * x / t[:, None], grid=grid),
            )  # fmt: skip
            return loss.mean()

        return jax.grad(objective)(a)

    for seed in range(3):
        assert jnp.isfinite(gradient(0.5, jax.random.key(seed)))
    assert len(traces) == 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "cosine"])
def test_ddim_shrinks_by_the_cosine_of_its_angle(name):
    """And keeps the mean. On the EDM path it is Euler's step."""
    path, _, high = PATHS[name]
    data = Gaussian()
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t, s = jnp.full(4, 0.9 * high), jnp.full(4, 0.3 * high)
    x_t = paths.interpolate(path, x, z, t)
    got = steps.ddim(path, x, z, t, s, denoiser=partial(gaussian_denoiser, data, path))
    angle_t, angle_s = (jnp.arctan2(path.sigma(r), path.alpha(r) * data.std) for r in (t, s))
    mean = (path.alpha(s) * data.mean)[:, None]
    exact = gaussian_flow_map(data, path, x_t, t, s)
    np.testing.assert_allclose(got - mean, (exact - mean) * jnp.cos(angle_t - angle_s)[:, None], rtol=1e-9)
    if name == "edm":
        velocity = partial(gaussian_velocity, data, path)
        np.testing.assert_allclose(got, steps.euler(path, x, z, t, s, velocity=velocity), rtol=1e-10)
    to_data = steps.ddim(path, x, z, t, jnp.zeros(4), denoiser=lambda x, t: 7.0 * jnp.ones_like(x))
    np.testing.assert_allclose(to_data, 7.0, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "cosine"])
@pytest.mark.parametrize(("step", "order"), [(steps.ddim, 1), (steps.dpm_solver, 2)])
def test_the_error_of_a_step_falls_as_its_order_says(name, step, order):
    path, _, high = PATHS[name]
    data = Gaussian()
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t = jnp.full(4, 0.5 * high)
    x_t = paths.interpolate(path, x, z, t)

    def error(size):
        got = step(path, x, z, t, t - size, denoiser=partial(gaussian_denoiser, data, path))
        return np.abs(got - gaussian_flow_map(data, path, x_t, t, t - size)).max()

    assert np.log2(error(0.02 * high) / error(0.01 * high)) == pytest.approx(order + 1, abs=0.1)


@pytest.mark.usefixtures("float64")
def test_dpm_solver_distils_to_nearly_the_ode_where_ddim_does_not():
    """The products of 50 steps from timestep 999 on data of standard deviation 0.5."""
    path, grid = paths.scaled_linear_beta(), pairs.ddim_grid(50)
    denoiser = partial(gaussian_denoiser, Gaussian(mean=0.0, std=0.5), path)

    def product(step: Step) -> float:
        # With data 0 and noise 1 / sigma_t the first point of a step is 1.
        ones = ((s, t, jnp.zeros((1, 1)), jnp.full((1, 1), 1.0) / path.sigma(t)) for s, t in pairwise(grid[:, None]))
        return float(np.prod([step(path, x, z, jnp.asarray(t), jnp.asarray(s)).item() for s, t, x, z in ones]))

    def two_stage(t: float, s: float) -> float:
        r = (t + s) / 2
        alpha, sigma = ({q: float(f(jnp.asarray([q]))[0]) for q in (t, r, s)} for f in path)
        ratio = {q: np.log(alpha[q] / sigma[q]) for q in (t, r, s)}
        gain = {q: 0.25 * alpha[q] / (0.25 * alpha[q] ** 2 + sigma[q] ** 2) for q in (t, r)}
        h, share = ratio[s] - ratio[t], (ratio[r] - ratio[t]) / (ratio[s] - ratio[t])
        u = sigma[r] / sigma[t] - alpha[r] * np.expm1(-share * h) * gain[t]
        D = (1 - 0.5 / share) * gain[t] + 0.5 / share * gain[r] * u
        return sigma[s] / sigma[t] - alpha[s] * np.expm1(-h) * D

    ddim = product(partial(steps.ddim, denoiser=denoiser))
    solver = product(partial(steps.dpm_solver, denoiser=denoiser))
    assert ddim == pytest.approx(0.47703472, abs=1e-8)
    assert solver == pytest.approx(float(np.prod([two_stage(t, s) for s, t in pairwise(grid)])), rel=1e-9)
    assert abs(solver - 0.50151428) < abs(ddim - 0.50151428) / 15


def test_a_jump_starts_from_the_state_at_t():
    path, (x, z) = paths.cosine, jax.random.normal(jax.random.key(0), (2, 4, 3))
    t, s = jnp.full(4, 0.7), jnp.full(4, 0.2)
    got = steps.jump(path, x, z, t, s, flow_map=lambda x_t, t, s: 2 * x_t + t[:, None] - s[:, None])
    np.testing.assert_allclose(got, 2 * paths.interpolate(path, x, z, t) + 0.5, rtol=1e-6)
