"""iLCT against its formulas with the authors' reductions, and at fixed points on Gaussian data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import cauchy, consistency, curricula, l2, pairs
from losses.couplings import independent
from losses.latent_consistency_training import latent_consistency_training
from losses.types import Pairs
from tests.losses.quadrature import signs
from tests.oracles import Gaussian

DATA = Gaussian(0.0, 0.5)
POINTS = jnp.asarray(41)


def fixed(t: float, s: float, weight: float = 1.0) -> Pairs:
    return lambda key, n: (jnp.full(n, t), jnp.full(n, s), jnp.full(n, weight))


def network(k, x, t):
    return k * x / (1 + t[:, None, None, None] ** 2)


def images(n: int) -> jax.Array:
    return 0.5 * jax.random.normal(jax.random.key(0), (n, 2, 2, 3))


@pytest.mark.usefixtures("float64")
def test_the_mean_over_the_batch_is_the_published_loss():
    """With indices from sigma_max on, means over elements, and a mean over the selected examples alone."""
    x, key, c = images(32), jax.random.key(3), 0.0061444
    law = partial(pairs.ict, points=POINTS)
    key_t, key_z = jax.random.split(key)
    t, _, _ = law(key_t, 32)
    z = independent(key_z, x)[1]
    grid = (80 ** (1 / 7) + np.arange(41) / 40 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    index = np.argmin(np.abs(np.asarray(t)[:, None] - grid), axis=1)
    late = index >= int(0.75 * 41)
    assert 4 < late.sum() < 28

    def ours(k):
        loss, metrics = latent_consistency_training(
            partial(network, k), x, key, pairs=law, distance=partial(cauchy, c=c * np.sqrt(12)),
            small_noise=curricula.small_noise(POINTS),
        )  # fmt: skip
        assert loss.shape == metrics["t"].shape == metrics["distance"].shape == metrics["diffusion"].shape == (32,)
        return loss.mean()

    def published(k):
        t, s = grid[index], grid[index + 1]
        f_t, f_s = (network(k, x + r[:, None, None, None] * z, r) for r in (t, s))
        mean = lambda a: jnp.mean(a**2, axis=(1, 2, 3))
        consistent = jnp.log(mean(f_t - jax.lax.stop_gradient(f_s)) / 2 + c**2) - 2 * np.log(c)
        diffusion = mean(f_t - x)[late] * (t**-2 + 0.5**-2)[late]
        return jnp.mean(consistent / (t - s)) + 5 * diffusion.mean()

    got, expected = (jax.jit(jax.value_and_grad(loss))(0.9) for loss in (ours, published))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_without_small_noise_it_is_the_consistency_loss():
    """No example is selected: no 0/0, and what `consistency` returns, with its gradient; likewise at weight 0."""
    x, key, law = images(8), jax.random.key(1), partial(pairs.ict, points=POINTS)

    def value(recipe, **settings):
        run = lambda k: recipe(partial(network, k), x, key, pairs=law, distance=partial(cauchy, c=0.1), **settings)[0]
        return jnp.asarray(jax.jit(jax.value_and_grad(lambda k: run(k).mean()))(0.9))

    expected = value(consistency)
    for settings in ({"small_noise": 0.0}, {"small_noise": 80.0, "diffusion_weight": 0.0}):
        np.testing.assert_allclose(value(latent_consistency_training, **settings), expected, rtol=2e-6)
    assert value(latent_consistency_training, small_noise=80.0)[0] > expected[0]


@partial(jax.jit, static_argnames=("distance", "small_noise"))
def evaluate(k, k_s, t, s, weight, *, distance=l2, small_noise=80.0):
    """Expectations over Gaussian data for f(x, t) = k x at t and k_s x at s: gradient of the loss in k, diffusion."""
    nodes = signs(DATA)

    def objective(k):
        loss, metrics = latent_consistency_training(
            lambda x, time: jnp.where(time == t, k, k_s)[:, None] * x, nodes.x, jax.random.key(0),
            pairs=fixed(t, s, weight), distance=distance, small_noise=small_noise, coupling=nodes.coupling,
        )  # fmt: skip
        return nodes.mean(loss), nodes.mean(metrics["diffusion"])

    return jax.grad(objective, has_aux=True)(k)


@pytest.mark.usefixtures("float64")
def test_fixed_point_on_gaussian_data():
    """Least squares of two goals: k_s x_s with weight w, and x with weight 5 (1/t^2 + 1/sigma_data^2)."""
    t, s, weight, k_s = 0.15, 0.1, 1 / 0.05, 0.97
    diffusion = 5 * (t**-2 + 0.5**-2)
    k = (weight * k_s * (0.25 + t * s) + diffusion * 0.25) / ((weight + diffusion) * (0.25 + t**2))
    slope = 2 * (weight + diffusion) * (0.25 + t**2)
    np.testing.assert_allclose(evaluate(k, k_s, t, s, weight)[0], 0, atol=1e-11)
    np.testing.assert_allclose(evaluate(k + 0.01, k_s, t, s, weight)[0], 0.01 * slope, rtol=1e-9)
    # The least diffusion loss is 1 at every noise level: that of the exact denoiser.
    np.testing.assert_allclose(evaluate(0.25 / (0.25 + t**2), k_s, t, s, weight)[1], 1, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("t", [0.1, 1.0])
def test_diffusion_pulls_only_where_the_noise_is_small(t):
    bound = float(curricula.small_noise(POINTS))
    assert 0.1 < bound < 1.0
    _, diffusion = evaluate(0.9, 0.95, t, 0.8 * t, 1.0, small_noise=bound)
    assert (diffusion > 0) == (t == 0.1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("c", [0.06, 2.0])
def test_the_cauchy_distance_keeps_the_fixed_point_of_consistency_training(c):
    """The residual given x_t is symmetric, so bounding its influence leaves the mean at 0."""
    t, s = 1.0, 0.4
    x_t, u = jax.random.normal(jax.random.key(0), (2, 64, 1)) * jnp.hypot(0.5, t)
    x_t, u = jnp.tile(x_t, (2, 1)), jnp.concatenate([u, -u])
    x = (0.25 * x_t + 0.5 * t * u) / (0.25 + t**2)

    @jax.jit
    def gradient(k):
        def objective(k):
            loss, _ = latent_consistency_training(
                lambda x, time: jnp.where(time == t, k, 1.0)[:, None] * x, x, jax.random.key(0), pairs=fixed(t, s),
                distance=partial(cauchy, c=c), small_noise=0.2, coupling=lambda key, x: (x, (x_t - x) / t),
            )  # fmt: skip
            return loss.mean()

        return jax.grad(objective)(k)

    exact = (0.25 + t * s) / (0.25 + t**2)
    np.testing.assert_allclose(gradient(exact), 0, atol=1e-12)
    assert gradient(exact + 0.01) > 1e-3


@pytest.mark.usefixtures("float64")
def test_perfect_transport_has_straight_trajectories_of_its_own():
    """z = x / std is optimal in one dimension. Then x_t = (1 + t / std) x, and f = (std + s0) / (std + t) x_t is exact.

    That is not the consistency function of independent noise, sqrt((std^2 + s0^2) / (std^2 + t^2)) x_t, at which
    every pair differs by O(t - s): the coupling moves the solution, and the law of x_t with it.
    """
    x, t = DATA.std * jax.random.normal(jax.random.key(0), (64, 1)), 1.0

    @partial(jax.jit, static_argnums=0)
    def loss(scale, s):
        return latent_consistency_training(
            lambda x, time: scale(time)[:, None] * x, x, jax.random.key(1), pairs=fixed(t, s), distance=l2,
            small_noise=0.0, coupling=lambda key, x: (x, x / DATA.std),
        )[0]  # fmt: skip

    straight = lambda t: (0.5 + 0.002) / (0.5 + t)
    curved = lambda t: jnp.sqrt((0.25 + 0.002**2) / (0.25 + t**2))
    np.testing.assert_allclose(loss(straight, 0.2), 0, atol=1e-28)
    coarse, fine = loss(curved, t - 0.02), loss(curved, t - 0.01)
    np.testing.assert_allclose(coarse / fine, 4, rtol=0.05)
    # d/dt of (std + t) / sqrt(std^2 + t^2), times x and the hop.
    exact = (0.5 * (0.5 - t) / (0.25 + t**2) ** 1.5 * 0.01 * x[:, 0]) ** 2
    np.testing.assert_allclose(fine, exact, rtol=0.05)


def test_one_call_at_each_end_of_a_pair():
    times = []

    def net(x, t):
        times.append(float(t[0]))
        return x

    latent_consistency_training(net, jnp.ones((4, 3)), jax.random.key(0), pairs=fixed(0.1, 0.05), distance=l2,
                                small_noise=0.2)  # fmt: skip
    np.testing.assert_allclose(times, [0.1, 0.05])


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("net", [lambda x, t: t, lambda x, t: x[:, :2], lambda x, t: x[:1]])
def test_wrong_output_shape(net):
    x = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        latent_consistency_training(net, x, jax.random.key(0), pairs=fixed(0.1, 0.05), distance=l2, small_noise=0.2)


def test_half_precision_network():
    x = jnp.ones((4, 3), jnp.bfloat16)
    loss, _ = latent_consistency_training(
        lambda x, t: x.astype(jnp.bfloat16), x, jax.random.key(0), pairs=fixed(0.1, 0.05),
        distance=partial(cauchy, c=0.1), small_noise=0.2,
    )  # fmt: skip
    assert loss.dtype == jnp.float32
