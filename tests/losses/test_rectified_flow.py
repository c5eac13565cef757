from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, likelihood_weight, paths, rectified_flow, times
from losses.types import Times
from tests.losses.quadrature import repeat, signs
from tests.oracles import PATHS, Gaussian, constant_times, gaussian_denoiser, gaussian_score, gaussian_velocity


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_floor_on_any_path(name):
    """Var(v | x_t) = W^2 s^2 / V_t with the Wronskian W = sigma alpha' - alpha sigma'; on the straight line W = -1."""
    path, low, high = PATHS[name]
    data = Gaussian()
    nodes = signs(data)
    for t in (low, 0.5 * high, high):
        c = paths.coefficients(path, jnp.full(4, t), nodes.x)
        loss, _ = rectified_flow(
            partial(gaussian_velocity, data, path), nodes.x, jax.random.key(0),
            times=constant_times(t), path=path, coupling=nodes.coupling,
        )  # fmt: skip
        wronskian, variance = c.sigma * c.alpha_rate - c.alpha * c.sigma_rate, (c.alpha * data.std) ** 2 + c.sigma**2
        floor = float((wronskian**2 * data.std**2 / variance)[0, 0])
        np.testing.assert_allclose(nodes.mean(loss), floor, rtol=1e-9)
        if name == "linear":
            np.testing.assert_allclose(floor, 0.49 / ((1 - t) ** 2 * 0.49 + t**2), rtol=1e-10)


def predictions(data, path):
    """The exact solution as each kind of prediction, and what makes a velocity of it."""
    score = partial(gaussian_score, data, path)
    return {
        "x": (conversions.denoiser_to_velocity, partial(gaussian_denoiser, data, path)),
        "z": (conversions.noise_to_velocity, lambda x_t, t: -paths.expand(path.sigma(t), x_t) * score(x_t, t)),
        "score": (conversions.score_to_velocity, score),
    }


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("prediction", ["x", "z", "score"])
@pytest.mark.parametrize("name", PATHS)
def test_other_predictions_have_the_same_floor_and_weights_of_their_own(name, prediction):
    """The velocity's error is W / sigma, W / alpha or W sigma / alpha times that of x, z or the score."""
    path, low, high = PATHS[name]
    data = Gaussian()
    nodes = signs(data)
    to_velocity, exact = predictions(data, path)[prediction]
    for t in (low, 0.5 * high, high):
        c = paths.coefficients(path, jnp.full(4, t), nodes.x)
        wronskian = c.sigma * c.alpha_rate - c.alpha * c.sigma_rate
        factor = {"x": wronskian / c.sigma, "z": wronskian / c.alpha, "score": wronskian * c.sigma / c.alpha}
        means = []
        for error in (0.0, 0.1):
            net = to_velocity(path, lambda x_t, t, error=error: exact(x_t, t) + error)
            loss, _ = rectified_flow(
                net, nodes.x, jax.random.key(0), times=constant_times(t), path=path, coupling=nodes.coupling
            )
            means.append(nodes.mean(loss))
        floor = (wronskian**2 * data.std**2 / ((c.alpha * data.std) ** 2 + c.sigma**2))[0, 0]
        np.testing.assert_allclose(means[0], floor, rtol=1e-8)
        np.testing.assert_allclose(means[1] - means[0], (0.1 * factor[prediction][0, 0]) ** 2, rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["linear", "cosine", "linear_beta"])
def test_likelihood_weight_of_a_noise_prediction(name):
    """SiT's own weight of |net - z|^2: |W| / (alpha sigma). On the straight path 1 / (t (1 - t))."""
    path = PATHS[name].path
    x, z, t = jnp.asarray([[0.4]]), jnp.asarray([[1.3]]), jnp.asarray([0.3])
    loss, _ = rectified_flow(
        conversions.noise_to_velocity(path, lambda x_t, t: jnp.full_like(x_t, 0.8)), x, jax.random.key(0),
        times=constant_times(0.3), weight=partial(likelihood_weight, path=path), path=path,
        coupling=lambda key, x: (x, z),
    )  # fmt: skip
    c = paths.coefficients(path, t, t)
    expected = jnp.abs(c.sigma * c.alpha_rate - c.alpha * c.sigma_rate) / (c.alpha * c.sigma) * 0.5**2
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    if name == "linear":
        np.testing.assert_allclose(loss, 0.25 / 0.21, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("prediction", ["velocity", "x", "z", "score"])
@pytest.mark.parametrize("std", [0.5, 0.7])
def test_floor_under_uniform_times_is_half_pi_s(std, prediction):
    data = Gaussian(0.3, std)
    points, masses = np.polynomial.legendre.leggauss(40)
    t, mass = jnp.asarray((points + 1) / 2), jnp.asarray(masses / 2)
    nodes = repeat(signs(data), len(t))
    net = partial(gaussian_velocity, data, paths.linear)
    if prediction != "velocity":
        to_velocity, exact = predictions(data, paths.linear)[prediction]
        net = to_velocity(paths.linear, exact)
    loss, _ = rectified_flow(
        net, nodes.x, jax.random.key(0),
        times=lambda key, n: jnp.tile(t, 4), coupling=nodes.coupling,
    )  # fmt: skip
    np.testing.assert_allclose(jnp.sum(loss * jnp.tile(mass, 4)) / 4, np.pi * std / 2, rtol=1e-10)


def test_defaults_are_straight_lines_and_uniform_times():
    data = Gaussian(0.7, 0.5)
    x = data.mean + data.std * jax.random.normal(jax.random.key(0), (20_000, 2))
    loss, metrics = jax.jit(lambda x, key: rectified_flow(partial(gaussian_velocity, data, paths.linear), x, key))(
        x, jax.random.key(1)
    )
    assert loss.shape == (20_000,)
    assert loss.dtype == jnp.float32
    assert abs(loss.mean() - 2 * np.pi * 0.5 / 2) < 4 * loss.std() / np.sqrt(20_000)
    assert abs(metrics["t"].mean() - 0.5) < 4 * np.sqrt(1 / 12 / 20_000)


def test_noise_and_times_are_independent_of_each_other():
    """The net sees x_t = t z where x = 0."""
    seen = {}

    def net(x_t, t):
        seen["z"], seen["t"] = x_t[:, 0] / t, t
        return x_t

    rectified_flow(net, jnp.zeros((4096, 1)), jax.random.key(0))
    assert abs(np.corrcoef(seen["z"], seen["t"])[0, 1]) < 4 / np.sqrt(4096)


LAWS: dict[str, Times] = {
    "uniform": times.uniform,
    "logit-normal": partial(times.logit_normal, mean=-0.4, std=1.0),
    "lognormal": partial(times.lognormal, mean=-1.2, std=0.4),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "law"), [("linear", "uniform"), ("trig", "logit-normal"), ("edm", "lognormal"),
                                           ("cosine", "logit-normal"), ("linear_beta", "logit-normal")])  # fmt: skip
def test_gradient_vanishes_at_the_exact_velocity_alone(name, law):
    """Whatever the law of t: it weighs noise levels, at each of which the gradient is 0."""
    path, data = PATHS[name].path, Gaussian()
    # The four signs share one t, drawn by the law, so their mean is the expectation at that t.
    nodes = repeat(signs(data), 32)

    def shared(key, n):
        return jnp.tile(LAWS[law](key, n // 4), 4)

    @jax.jit
    def gradient(params):
        def objective(params):
            def net(x, t):
                return gaussian_velocity(data, path, x, t) + params[0] * x + params[1] + params[2] * t[:, None]

            loss, _ = rectified_flow(net, nodes.x, jax.random.key(0), times=shared, path=path, coupling=nodes.coupling)
            return nodes.mean(loss)

        return jax.grad(objective)(params)

    np.testing.assert_allclose(gradient(jnp.zeros(3)), 0, atol=1e-11)
    for i in range(3):
        assert jnp.abs(gradient(jnp.zeros(3).at[i].set(0.01))).max() > 1e-3


@pytest.mark.usefixtures("float64")
def test_reflow_pairs_have_floor_zero():
    """A coupling by the ODE itself, x = m + s z, leaves nothing to average: one Euler step is exact (Liu 2022)."""
    data = Gaussian()
    z = jax.random.normal(jax.random.key(0), (16, 2))
    x = data.mean + data.std * z

    def net(x_t, t):
        t = t[:, None]
        z = (x_t - (1 - t) * data.mean) / ((1 - t) * data.std + t)
        return z - data.mean - data.std * z

    loss, _ = rectified_flow(net, x, jax.random.key(1), coupling=lambda key, x: (x, z))
    np.testing.assert_allclose(loss, 0, atol=1e-28)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_output_shape():
    with pytest.raises(ValueError, match=r"got \(4,\) and \(4, 3\)"):
        rectified_flow(lambda x, t: t, jnp.ones((4, 3)), jax.random.key(0))
