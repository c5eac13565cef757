import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, paths
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_score, gaussian_velocity

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


def test_half_precision_prediction_is_converted_in_float32():
    x = jnp.ones((2, 3), jnp.bfloat16)
    got = conversions.from_v(paths.linear, x, x, jnp.asarray([0.3, 0.6]))
    assert {got.x.dtype, got.z.dtype, got.score.dtype} == {jnp.dtype(jnp.float32)}
