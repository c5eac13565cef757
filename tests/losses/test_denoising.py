from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import denoising, distances, paths, times, weights
from tests.losses.quadrature import repeat, signs
from tests.oracles import PATHS, Gaussian, constant_times, gaussian_denoiser


def exact_loss(data: Gaussian, t: float, net, **ingredients) -> float:
    nodes = signs(data)
    loss, _ = denoising(
        net, nodes.x, jax.random.key(0), times=constant_times(t), coupling=nodes.coupling, **ingredients
    )
    return float(nodes.mean(loss))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("std", [0.5, 0.7])
@pytest.mark.parametrize("t", [0.01, 0.5, 10.0])
def test_floor_on_gaussian_data(std, t):
    """weight(t) s^2 t^2 / (s^2 + t^2), the posterior variance; exactly 1 at every t where s = sigma_data."""
    data = Gaussian(0.3, std)
    floor = exact_loss(data, t, partial(gaussian_denoiser, data, paths.edm))
    np.testing.assert_allclose(floor, (t**2 + 0.25) / (t * 0.5) ** 2 * std**2 * t**2 / (std**2 + t**2), rtol=1e-10)
    golden: dict[float, dict[float, float]] = {
        0.5: {0.01: 1, 0.5: 1, 10.0: 1},
        0.7: {0.01: 1.0002, 0.5: 1.3243, 10.0: 1.9553},
    }
    np.testing.assert_allclose(floor, golden[std][t], atol=5e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_floor_on_any_path(name):
    """With the signal-to-noise weight the floor is that of the noise: alpha^2 s^2 / V_t."""
    path, low, high = PATHS[name]
    data = Gaussian()
    for t in (low, 0.6 * high):
        alpha, sigma = float(path.alpha(jnp.asarray(t))), float(path.sigma(jnp.asarray(t)))
        signal = (alpha * data.std) ** 2
        net, weight = partial(gaussian_denoiser, data, path), partial(weights.snr_weight, path=path)
        floor = exact_loss(data, t, net, path=path, weight=weight)
        np.testing.assert_allclose(floor, signal / (signal + sigma**2), rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear", "linear_beta"])
def test_gradient_vanishes_at_the_exact_denoiser_alone(name):
    path, _, high = PATHS[name]
    data, t = Gaussian(), 0.4 * high
    nodes = signs(data)

    @jax.jit
    def gradient(params):
        def objective(params):
            def net(x, t):
                return gaussian_denoiser(data, path, x, t) + params[0] * x + params[1]

            return nodes.mean(denoising(net, nodes.x, jax.random.key(0), times=constant_times(t), path=path,
                                        coupling=nodes.coupling)[0])  # fmt: skip

        return jax.grad(objective)(params)

    np.testing.assert_allclose(gradient(jnp.zeros(2)), 0, atol=1e-12)
    for perturbed in ([0.01, 0.0], [0.0, 0.01], [-0.01, 0.0]):
        assert jnp.abs(gradient(jnp.asarray(perturbed))).max() > 1e-3


def test_defaults_are_edm_and_sum_over_elements():
    """s = sigma_data: 1 for every element at every noise level, so d on average whatever the law of t."""
    data = Gaussian(0.0, 0.5)
    x = 0.5 * jax.random.normal(jax.random.key(0), (2048, 4, 4, 3))
    loss, metrics = jax.jit(lambda x, key: denoising(partial(gaussian_denoiser, data, paths.edm), x, key))(
        x, jax.random.key(1)
    )
    assert loss.shape == metrics["t"].shape == (2048,)
    assert loss.dtype == jnp.float32
    # Each example is close to chi-squared with 48 degrees of freedom.
    assert abs(loss.mean() - 48) < 4 * np.sqrt(2 * 48 / 2048)
    log_t = jnp.log(metrics["t"])
    assert abs(log_t.mean() + 1.2) < 4 * 1.2 / np.sqrt(2048)


def test_noise_and_times_are_independent_of_each_other():
    """With one key for both, the noise of an example would follow from its noise level."""
    seen = {}

    def net(x_t, t):
        seen["z"], seen["t"] = (x_t - 1) / t[:, None], t
        return x_t

    denoising(net, jnp.ones((4096, 1)), jax.random.key(0), times=times.uniform)
    correlation = np.corrcoef(seen["z"][:, 0], np.log(seen["t"]))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(4096)


@pytest.mark.usefixtures("float64")
def test_distance_and_weight_are_the_callers():
    nodes = repeat(signs(Gaussian()), 2)
    call = partial(denoising, lambda x, t: x, nodes.x, jax.random.key(0), times=constant_times(2.0),
                   coupling=nodes.coupling)  # fmt: skip
    loss, _ = call(distance=distances.l1, weight=lambda t: 3 * t)
    np.testing.assert_allclose(loss, 6 * 2.0 * jnp.abs(nodes.z[:, 0]), rtol=1e-12)


def test_half_precision_data_is_trained_in_float32():
    x = jnp.ones((4, 3), jnp.bfloat16)
    loss, _ = denoising(lambda x, t: x.astype(jnp.bfloat16), x, jax.random.key(0))
    assert loss.dtype == jnp.float32


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_output_shape():
    with pytest.raises(ValueError, match=r"got \(4, 6\) and \(4, 3\)"):
        denoising(lambda x, t: jnp.tile(x, 2), jnp.ones((4, 3)), jax.random.key(0))
