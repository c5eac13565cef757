from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import l1, l2
from losses.autoencoding import autoencoding, kl_to_normal


def identity_encode(x):
    return x, jnp.full_like(x, -30.0)


# ---- Divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_divergence_is_the_closed_form_and_sums_over_the_latent():
    mean, std = jnp.array([[0.3, -1.2], [0.0, 2.0]]), jnp.array([[0.5, 2.0], [1.0, 0.1]])
    expected = jnp.sum((mean**2 + std**2 - 1) / 2 - jnp.log(std), axis=1)
    np.testing.assert_allclose(kl_to_normal(mean, 2 * jnp.log(std)), expected, rtol=1e-12)
    shape = (2, 2, 1)
    np.testing.assert_allclose(kl_to_normal(mean.reshape(shape), 2 * jnp.log(std).reshape(shape)), expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_divergence_is_the_expected_difference_of_log_densities():
    """E_q[log q - log p], by Gauss-Hermite nodes: exact, the integrand is quadratic."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(4)
    mean, std = 0.7, 0.4
    z = mean + std * nodes
    integrand = -(nodes**2) / 2 - np.log(std) + z**2 / 2
    expected = np.sum(masses * integrand) / np.sum(masses)
    found = kl_to_normal(jnp.array([[mean]]), jnp.array([[2 * np.log(std)]]))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_divergence_is_zero_with_its_gradient_at_the_prior_and_keeps_its_digits_near_it():
    zero = jnp.zeros((1, 3))
    assert kl_to_normal(zero, zero) == 0
    gradient = jax.grad(lambda mean, logvar: kl_to_normal(mean, logvar).sum(), (0, 1))(zero, zero)
    np.testing.assert_array_equal(gradient, np.zeros((2, 1, 3)))
    np.testing.assert_allclose(kl_to_normal(zero, zero + 1e-2), [3 * 1e-4 / 4], rtol=4e-3)  # logvar^2 / 4 + ...


@pytest.mark.usefixtures("unchecked_shapes")
def test_divergence_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 1\)"):
        kl_to_normal(jnp.zeros((2, 3)), jnp.zeros((2, 1)))


# ---- The sum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reconstruction", [l1, l2])
def test_the_loss_is_the_sum_of_its_parts(reconstruction):
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))

    def perceptual(a, b):
        return jnp.abs(a - b).mean(axis=(1, 2, 3))

    loss, parts = autoencoding(
        identity_encode,
        lambda z: 0.5 * z,
        x,
        jax.random.key(1),
        kl_weight=0.1,
        reconstruction=reconstruction,
        perceptual=perceptual,
    )
    assert set(parts) == {"reconstruction", "kl", "perceptual"}
    # The latent is its mean: the deviation is exp(-15).
    np.testing.assert_allclose(parts["reconstruction"], reconstruction(0.5 * x, x), rtol=1e-5)
    np.testing.assert_allclose(parts["kl"], jnp.sum(x**2, axis=(1, 2, 3)) / 2 + 32 * 29 / 2, rtol=1e-5)
    np.testing.assert_allclose(parts["perceptual"], jnp.abs(x).mean(axis=(1, 2, 3)) / 2, rtol=1e-5)
    np.testing.assert_allclose(loss, parts["reconstruction"] + 0.1 * parts["kl"] + 32 * parts["perceptual"], rtol=1e-6)
    assert loss.dtype == jnp.float32


def test_parts_that_are_not_asked_for_are_not_there():
    _, parts = autoencoding(identity_encode, lambda z: z, jnp.ones((2, 3)), jax.random.key(0))
    assert set(parts) == {"reconstruction", "kl"}


def test_the_latent_is_drawn_from_the_posterior():
    n, logvar = 20_000, jnp.log(jnp.array([0.09, 4.0]))
    drawn = []

    def decode(z):
        drawn.append(z)
        return z

    autoencoding(
        lambda x: (x, jnp.broadcast_to(logvar, x.shape)),
        decode,
        jnp.tile(jnp.array([1.0, -2.0]), (n, 1)),
        jax.random.key(0),
    )
    std = np.exp(np.asarray(logvar) / 2)
    np.testing.assert_allclose(drawn[0].mean(axis=0), [1, -2], atol=5 * std.max() / np.sqrt(n))
    np.testing.assert_allclose(drawn[0].std(axis=0), std, rtol=5 / np.sqrt(2 * n))


def test_half_precision_networks_give_float32_losses():
    x = jnp.ones((2, 3), jnp.bfloat16)
    loss, parts = autoencoding(identity_encode, lambda z: z.astype(jnp.bfloat16), x, jax.random.key(0))
    assert {value.dtype for value in (loss, *parts.values())} == {jnp.dtype("float32")}


@pytest.mark.usefixtures("float64")
def test_the_loss_reaches_encoder_decoder_and_deviation():
    """d/dp of |x - (p0 x + exp(p1 / 2) e) p2|^2 + ..., against finite differences of the same noise."""
    x = jax.random.normal(jax.random.key(0), (5, 2))

    @jax.jit
    def loss(p):
        encode = lambda x: (p[0] * x, jnp.full_like(x, p[1]))
        return autoencoding(encode, lambda z: p[2] * z, x, jax.random.key(1), kl_weight=0.3, reconstruction=l2)[0].sum()

    p = jnp.array([0.8, -1.0, 1.1])
    gradient = jax.jit(jax.grad(loss))(p)
    differences = [(loss(p + step) - loss(p - step)) / 2e-5 for step in 1e-5 * jnp.eye(3)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-8)
    assert np.abs(gradient).min() > 0.1


def test_an_adversary_that_stops_its_gradients_moves_each_player_by_its_own_term():
    x = jnp.array([[1.0], [3.0]])

    def loss(params):
        def adversary(x, y):
            frozen, critic = jax.lax.stop_gradient(params["critic"]), params["critic"]
            return -(frozen * y)[:, 0], (critic * (jax.lax.stop_gradient(y) - x))[:, 0]

        losses, parts = autoencoding(
            identity_encode,
            lambda z: params["decoder"] * z,
            x,
            jax.random.key(0),
            kl_weight=0.0,
            adversary=adversary,
            adversarial_weight=0.25,
        )
        assert set(parts) == {"reconstruction", "adversarial", "discriminator", "kl"}
        return losses.mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))({"critic": jnp.float32(40.0), "decoder": jnp.float32(2.0)})
    np.testing.assert_allclose(gradient["critic"], 4 / 2, rtol=1e-5)  # mean of y - x
    # Of mean |y - x| = 2, and of the adversary as long a gradient the other way, a quarter of it.
    np.testing.assert_allclose(gradient["decoder"], 2 - 0.25 * 2, rtol=1e-4)
    np.testing.assert_allclose(value, 2 - 0.25 * 4 + 40 * 2, rtol=1e-4)


# ---- Probabilistic PCA -----------------------------------------------------------------------------------------------

VARIANCE = 0.2  # of the decoder's noise; kl_weight is twice that
COVARIANCE = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, -0.2], [0.1, -0.2, 0.4]])


def optimum():
    """Tipping and Bishop 1999: W = U (L - s^2)^(1/2), posterior N(M^-1 W' x, s^2 M^-1), M = W'W + s^2 I = L."""
    values, vectors = np.linalg.eigh(COVARIANCE)
    values, vectors = values[1:], vectors[:, 1:]  # two latent dimensions of three
    weight = vectors * np.sqrt(values - VARIANCE)
    return {
        "encoder": jnp.asarray(weight / values),
        "logvar": jnp.asarray(np.log(VARIANCE / values)),
        "decoder": jnp.asarray(weight.T),
    }


@partial(jax.jit, static_argnames="n")
@partial(jax.vmap, in_axes=(None, 0))
def batches_of(params, key, n=500):
    """Mean loss and its gradient on independent batches of data and noise."""

    def loss(params):
        key_x, key_z = jax.random.split(key)
        x = jax.random.normal(key_x, (n, 3)) @ jnp.asarray(np.linalg.cholesky(COVARIANCE).T)
        encode = lambda x: (x @ params["encoder"], jnp.broadcast_to(params["logvar"], (n, 2)))
        decode = lambda z: z @ params["decoder"]
        return autoencoding(encode, decode, x, key_z, kl_weight=2 * VARIANCE, reconstruction=l2)[0].mean()

    return jax.value_and_grad(loss)(params)


def deviations(samples, expected):
    """How many standard errors the mean of the batches lies from what is expected."""
    samples = np.asarray(samples)
    return np.abs(samples.mean(axis=0) - expected) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


@pytest.mark.usefixtures("float64")
def test_probabilistic_pca_is_the_optimum_of_linear_networks():
    keys = jax.random.split(jax.random.key(0), 100)
    losses, gradient = batches_of(optimum(), keys)
    for leaf in jax.tree.leaves(gradient):
        assert deviations(leaf, 0).max() < 4
    # There the bound is tight: 2 s^2 (E[-log p(x)] - d/2 log 2 pi s^2) under N(0, W W' + s^2 I).
    weight = np.asarray(optimum()["decoder"])
    model = weight.T @ weight + VARIANCE * np.eye(3)
    surprise = (np.linalg.slogdet(model)[1] + np.trace(np.linalg.solve(model, COVARIANCE))) / 2
    assert deviations(losses, 2 * VARIANCE * (surprise - 3 / 2 * np.log(VARIANCE))) < 4

    # Away from it the loss rises in the direction of the change, as it must around a minimum.
    for part, leaf in optimum().items():
        _, gradient = batches_of({**optimum(), part: 1.2 * leaf}, keys)
        slopes = np.asarray(jnp.sum(0.2 * leaf * gradient[part], axis=tuple(range(1, leaf.ndim + 1))))
        assert slopes.mean() > 0
        assert deviations(slopes, 0) > 10
