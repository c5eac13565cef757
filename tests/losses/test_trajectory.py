"""Trajectory consistency at its exact solutions.

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

from losses import consistency, distances, jumps, pairs, paths, steps, trajectory_consistency, triples
from losses.types import FlowMap, Net
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_flow_map

SD = paths.scaled_linear_beta()


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
