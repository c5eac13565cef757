from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, paths
from losses.types import Net
from tests.oracles import (
    PATHS,
    Gaussian,
    Mixture,
    gaussian_consistency,
    gaussian_denoiser,
    gaussian_flow_map,
    gaussian_score,
    gaussian_velocity,
    mixture_denoiser,
)

FROM = {
    "x": conversions.from_x,
    "z": conversions.from_z,
    "v": conversions.from_v,
    "score": conversions.from_score,
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_every_round_trip(name):
    """Each of x, z, v, score gives back all four, from a point whose four are known by construction."""
    path, low, high = PATHS[name]
    t = jnp.linspace(low, high, 5)
    x, z = jax.random.normal(jax.random.key(0), (2, 5, 3, 2))
    x_t = paths.interpolate(path, x, z, t)
    expected = conversions.Components(
        x=x, z=z, v=paths.velocity(path, x, z, t), score=-z / path.sigma(t)[:, None, None]
    )
    for kind, convert in FROM.items():
        got = convert(path, x_t, getattr(expected, kind), t)
        for name, a, b in zip(expected._fields, got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"{name} from {kind}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_posterior_means_of_gaussian_data(name):
    """The conversions are affine, so they also hold between E[x | x_t], E[v | x_t] and the score of the marginal."""
    path, low, high = PATHS[name]
    t = jnp.linspace(low, high, 5)
    x_t = jax.random.normal(jax.random.key(0), (5, 3))
    data = Gaussian()
    exact = {
        "x": gaussian_denoiser(data, path, x_t, t),
        "v": gaussian_velocity(data, path, x_t, t),
        "score": gaussian_score(data, path, x_t, t),
    }
    for kind, value in exact.items():
        got = FROM[kind](path, x_t, value, t)
        for other, expected in exact.items():
            np.testing.assert_allclose(getattr(got, other), expected, rtol=1e-9, atol=1e-9, err_msg=f"{kind} {other}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "trig", "cosine", "trigflow"])
def test_velocity_is_regular_at_the_data(name):
    """At t = 0, where from_x divides by sigma, a velocity still gives x = x_t and the noise."""
    path = PATHS[name].path
    t = jnp.zeros(4)
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    got = conversions.from_v(path, x, paths.velocity(path, x, z, t), t)
    np.testing.assert_allclose(got.x, x, rtol=1e-14)
    np.testing.assert_allclose(got.z, z, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_velocity_is_regular_at_pure_noise():
    """At t = 1 of the straight path, where from_z divides by alpha = 0."""
    t = jnp.ones(4)
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    got = conversions.from_v(paths.linear, z, paths.velocity(paths.linear, x, z, t), t)
    np.testing.assert_allclose(got.x, x, rtol=1e-12)
    np.testing.assert_allclose(got.z, z, rtol=1e-12)


READ: dict[str, Callable[[Net, paths.Path], Net]] = {
    "edm": conversions.edm_on_path,
    "trigflow": partial(conversions.trigflow_on_path, sigma_data=0.5),
}
SINGULAR_START = {"linear", "trig", "cosine", "trigflow"}
"""Paths that end in pure noise, where x_t / alpha is infinite."""


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("source", READ)
def test_networks_of_one_path_read_on_another(source, name):
    """The exact denoiser and the exact consistency function are those of the other, from data to (almost) noise."""
    path, low, high = PATHS[name]
    t = jnp.asarray([0.0, low, (low + high) / 2, high])
    x_t = jax.random.normal(jax.random.key(0), (4, 3, 1)) * jnp.maximum(path.sigma(t), 1)[:, None, None]
    oracles = [(gaussian_denoiser, Gaussian()), (gaussian_consistency, Gaussian()), (mixture_denoiser, Mixture())]
    for oracle, data in oracles:
        net = partial(oracle, data, PATHS[source].path)
        got = READ[source](net, path)(x_t, t)
        np.testing.assert_allclose(got, oracle(data, path, x_t, t), rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", sorted(SINGULAR_START))
def test_trigflow_is_read_at_pure_noise(name):
    """Values and time derivatives at alpha = 0: the denoiser there is the mean of the data."""
    path = PATHS[name].path
    t = jnp.full(2, 1.0 if name in ("linear", "cosine") else np.pi / 2)
    x_t = jnp.asarray([[0.3], [-1.2]])
    for oracle in (gaussian_denoiser, gaussian_consistency):
        net = conversions.trigflow_on_path(partial(oracle, Gaussian(), PATHS["trigflow"].path), path, sigma_data=0.5)
        value, rate = jax.jvp(lambda t: net(x_t, t), (t,), (jnp.ones(2),))  # noqa: B023
        exact, exact_rate = jax.jvp(lambda t: oracle(Gaussian(), path, x_t, t), (t,), (jnp.ones(2),))  # noqa: B023
        np.testing.assert_allclose(value, exact, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(rate, exact_rate, rtol=1e-9, atol=1e-12)
        if oracle is gaussian_denoiser:
            np.testing.assert_allclose(value, 0.3, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "trigflow"])
def test_networks_are_read_and_differentiated_at_the_data(name):
    """At t = 0 value and derivatives are finite, forwards and backwards."""
    path, x_t, t = PATHS[name].path, jnp.asarray([[0.3], [-1.2]]), jnp.zeros(2)
    for source, read in READ.items():
        net = read(partial(gaussian_consistency, Gaussian(), PATHS[source].path), path)
        value, rate = jax.jvp(net, (x_t, t), (jnp.ones_like(x_t), jnp.ones_like(t)))
        np.testing.assert_allclose(value, x_t, rtol=1e-12)
        exact = partial(gaussian_consistency, Gaussian(), path)
        np.testing.assert_allclose(rate, jax.jvp(exact, (x_t, t), (jnp.ones_like(x_t), jnp.ones_like(t)))[1], rtol=1e-9)
        assert jnp.isfinite(jax.grad(lambda t: net(x_t, t).sum())(t)).all()  # noqa: B023


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_velocity_of_a_denoiser(name):
    path, low, high = PATHS[name]
    t, x_t = jnp.linspace(low, high, 5), jax.random.normal(jax.random.key(0), (5, 3))
    got = conversions.denoiser_to_velocity(path, partial(gaussian_denoiser, Gaussian(), path))(x_t, t)
    np.testing.assert_allclose(got, gaussian_velocity(Gaussian(), path, x_t, t), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_velocity_of_a_score_and_of_a_noise_prediction(name):
    """E[z | x_t] is -sigma times the score."""
    path, low, high = PATHS[name]
    t, x_t = jnp.linspace(low, high, 5), jax.random.normal(jax.random.key(0), (5, 3))
    score = partial(gaussian_score, Gaussian(), path)
    exact = gaussian_velocity(Gaussian(), path, x_t, t)
    np.testing.assert_allclose(conversions.score_to_velocity(path, score)(x_t, t), exact, rtol=1e-9, atol=1e-9)
    noise = conversions.noise_to_velocity(path, lambda x_t, t: -paths.expand(path.sigma(t), x_t) * score(x_t, t))
    np.testing.assert_allclose(noise(x_t, t), exact, rtol=1e-9, atol=1e-9)


def test_half_precision_states_are_read_in_float32():
    asked = []

    def net(x, t):
        asked.extend([x.dtype, t.dtype])
        return x

    for read in READ.values():
        read(net, paths.linear)(jnp.ones((2, 3), jnp.bfloat16), jnp.full(2, 0.5, jnp.bfloat16))
    assert set(asked) == {jnp.dtype(jnp.float32)}


def test_half_precision_prediction_is_converted_in_float32():
    x = jnp.ones((2, 3), jnp.bfloat16)
    got = conversions.from_v(paths.linear, x, x, jnp.asarray([0.3, 0.6]))
    assert {got.x.dtype, got.z.dtype, got.score.dtype} == {jnp.dtype(jnp.float32)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_ddim_jump_holds_data_and_noise(name):
    """From any two of x, z, x_t to the state at s, to the bit where s = t, and by a denoiser of point data exactly."""
    path, low, high = PATHS[name]
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t, s = jnp.linspace(0.5 * high, high, 4), jnp.linspace(low, 0.4 * high, 4)
    x_t = paths.interpolate(path, x, z, t)
    expected = paths.interpolate(path, x, z, s)
    np.testing.assert_allclose(conversions.ddim_jump(path, x_t, x, t, s), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(conversions.ddim_jump(path, x_t, z, t, t), x_t)
    flow_map = conversions.denoiser_to_flow_map(path, lambda x_t, t: x)
    np.testing.assert_array_equal(flow_map(x_t, t, s), conversions.ddim_jump(path, x_t, x, t, s))


def test_ddim_jump_by_way_of_another_time():
    """With data and noise held fixed, jumps compose."""
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    flow_map = conversions.denoiser_to_flow_map(paths.linear, lambda x_t, t: x)
    t, u, s = (jnp.full(4, r) for r in (0.9, 0.5, 0.0))
    x_t = paths.interpolate(paths.linear, x, z, t)
    np.testing.assert_allclose(flow_map(flow_map(x_t, t, u), u, s), x, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_average_velocity_jumps_along_the_trajectory():
    """From the exact mean velocity the exact state, and x_t to the bit where s = t."""
    x_t, t, s = jnp.asarray([[0.3], [-1.2], [2.0]]), jnp.asarray([0.8, 1.0, 0.4]), jnp.asarray([0.25, 0.0, 0.4])
    exact = gaussian_flow_map(Gaussian(), paths.linear, x_t, t, s)
    u = (x_t - exact) / jnp.maximum(t - s, 1e-9)[:, None]
    got = conversions.average_velocity_to_flow_map(lambda x_t, t, s: u)(x_t, t, s)
    np.testing.assert_allclose(got, exact, rtol=1e-13)
    np.testing.assert_array_equal(got[2], x_t[2])


# ---- Jumps of TCD ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear"])
@pytest.mark.parametrize(
    ("to_flow_map", "ratio"),
    [(conversions.denoiser_to_flow_map, 4), (conversions.denoiser_to_second_order_flow_map, 8)],
)
def test_local_errors_of_tcds_jumps(to_flow_map, ratio, name):
    """TCF(1) and TCF(2) of the exact data prediction are off by O(h^2) and O(h^3), h that of ln(alpha / sigma)."""
    data, path = Gaussian(), PATHS[name].path
    flow_map = to_flow_map(path, partial(gaussian_denoiser, data, path))
    x_t, t = jnp.asarray([[1.3], [-0.4]]), jnp.asarray([0.8, 0.5])

    def error(h):
        s = t * np.exp(-h) if name == "edm" else jax.nn.sigmoid(jnp.log(t / (1 - t)) - h)
        return np.abs(flow_map(x_t, t, s) - gaussian_flow_map(data, path, x_t, t, s))

    np.testing.assert_allclose(error(0.004) / error(0.002), ratio, rtol=0.02)


@pytest.mark.usefixtures("float64")
def test_the_second_order_jump_is_its_formula_whatever_the_step_half_way():
    """(sigma_s / sigma_t) x - alpha_s (e^-h - 1) [(1 - 1/2r) x_theta(x, t) + 1/2r x_theta(x_u, u)] of Zheng et al."""
    path, D = paths.scaled_linear_beta(), lambda x, t: jnp.sin(x) + 0.001 * t[:, None]
    x, t, s = jnp.asarray([[0.3], [1.1]]), jnp.asarray([999.0, 259.0]), jnp.asarray([500.0, 0.0])
    u = (t + s) / 2
    alpha, sigma = ({r: f(time)[:, None] for r, time in (("t", t), ("u", u), ("s", s))} for f in path)
    ratio = {r: jnp.log(alpha[r] / sigma[r]) for r in "tus"}
    h = ratio["s"] - ratio["t"]
    r = (ratio["u"] - ratio["t"]) / h
    x_u = sigma["u"] / sigma["t"] * x - alpha["u"] * jnp.expm1(-r * h) * D(x, t)
    both = (1 - 1 / (2 * r)) * D(x, t) + 1 / (2 * r) * D(x_u, u)
    expected = sigma["s"] / sigma["t"] * x - alpha["s"] * jnp.expm1(-h) * both
    flow_map = conversions.denoiser_to_second_order_flow_map(path, D)
    np.testing.assert_allclose(flow_map(x, t, s), expected, rtol=1e-10)
    np.testing.assert_array_equal(flow_map(x, t, t), x)


@pytest.mark.usefixtures("float64")
def test_one_prediction_is_not_right_for_two_ends():
    """Why TCD's network is told s: the share of x_999 that makes the jump exact on N(0, 0.25), for each s."""
    path, data = paths.scaled_linear_beta(), Gaussian(0.0, 0.5)
    x, t, s = jnp.ones((5, 1)), jnp.full(5, 999.0), jnp.asarray([0.0, 250.0, 500.0, 750.0, 990.0])
    exact = gaussian_flow_map(data, path, x, t, s)
    kept = conversions.ddim_jump(path, x, jnp.zeros_like(x), t, s)
    slope = conversions.ddim_jump(path, x, jnp.ones_like(x), t, s) - kept
    np.testing.assert_allclose(((exact - kept) / slope)[:, 0], [0.4734, 0.1689, 0.0840, 0.0390, 0.0176], atol=5e-5)
