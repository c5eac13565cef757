"""Steps over reference sets of every size, against the definition of their mean."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, distances, pairs, paths, reference_sets, steps, weights
from tests.oracles import PATHS, Gaussian, gaussian_denoiser

posterior_mean = jax.jit(reference_sets.posterior_mean, static_argnums=0)
reference_average = jax.jit(reference_sets.average, static_argnums=0)


def direct_mean(path: paths.Path, x: Any, z: Any, t: jax.Array, references: Any, allowed: Any) -> np.ndarray:
    """E[x | x_t, set] from its definition, in float64."""
    x, z, references = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, z, references))
    alphas, sigmas = path.alpha(t), path.sigma(t)
    result = []
    for i in range(len(x)):
        alpha, sigma = float(alphas[i]), float(sigmas[i])
        members = np.concatenate([x[i : i + 1], references[np.asarray(allowed[i])]])
        logits = -(((alpha * x[i] + sigma * z[i] - alpha * members) ** 2).sum(axis=1)) / (2 * sigma**2)
        mass = np.exp(logits - logits.max())
        result.append(mass @ members / mass.sum())
    return np.stack(result)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_average_is_its_definition_on_every_path(name):
    path, low, high = PATHS[name]
    x, z, references = jax.random.normal(jax.random.key(0), (3, 6, 2, 2))
    references = references[:5]
    allowed = jax.random.bernoulli(jax.random.key(1), 0.6, (6, 5))
    t = jnp.linspace(low, high, 6)
    mean = posterior_mean(path, x, z, t, references=references, allowed=allowed)
    exact = direct_mean(path, x, z, t, references, allowed).reshape(x.shape)
    np.testing.assert_allclose(mean, exact, rtol=1e-9, atol=1e-11)
    # The step holds that prediction and its noise fixed.
    s = 0.6 * t
    x_s = reference_average(path, x, z, t, s, references=references, allowed=allowed)
    column = lambda c: c[:, None, None]
    noise = (paths.interpolate(path, x, z, t) - column(path.alpha(t)) * exact) / column(path.sigma(t))
    expected = column(path.alpha(s)) * exact + column(path.sigma(s)) * noise
    np.testing.assert_allclose(x_s, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("n", [0, 7])
def test_without_references_it_is_consistency_training_bit_for_bit(n):
    """Operation by operation: two compiled programs round as the compiler joined them."""
    x, references = jax.random.normal(jax.random.key(0), (16, 12)), jnp.ones((n, 12))
    step = partial(reference_sets.average, references=references, allowed=jnp.zeros((16, n), bool))
    weight = 0.3 * jax.random.normal(jax.random.key(2), (12, 12))

    def objective(step, weight):
        net = lambda x, t: jnp.tanh(x @ weight) / (1 + t[:, None])
        loss, _ = consistency(net, x, jax.random.key(1), pairs=partial(pairs.ect, stage=2), step=step)
        return loss.sum(), loss

    results = []
    for candidate in (step, steps.same_noise):
        call = jax.value_and_grad(partial(objective, candidate), has_aux=True)
        results.append(call(weight))
    for ours, theirs in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def draws(n: int, t: float, path: paths.Path = paths.edm, count: int = 100_000) -> tuple[np.ndarray, ...]:
    """x_t, posterior mean over n examples of which x is one, and E[x | x_t], of independent sets of N(0.3, 0.7^2)."""
    data = Gaussian()
    key_x, key_z, key_references = jax.random.split(jax.random.key(n), 3)
    x = data.mean + data.std * jax.random.normal(key_x, (count, 1, 1))
    z = jax.random.normal(key_z, (count, 1, 1))
    references = data.mean + data.std * jax.random.normal(key_references, (count, n - 1, 1))
    time = jnp.full(1, t)

    @jax.jit
    @jax.vmap
    def average(x, z, references):
        return reference_sets.posterior_mean(
            path, x, z, time, references=references, allowed=jnp.ones((1, n - 1), bool)
        )

    mean = average(x, z, references)[:, 0, 0]
    x_t = paths.interpolate(path, x[:, 0], z[:, 0], jnp.full(count, t))[:, 0]
    return tuple(np.asarray(a, np.float64) for a in (x_t, mean, gaussian_denoiser(data, path, x_t, t)))


def regression(x_t: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of y on x_t, and its standard error."""
    centred = x_t - x_t.mean()
    slope = centred @ y / (centred @ centred)
    residual = y - y.mean() - slope * centred
    return slope, np.sqrt(np.sum((centred * residual) ** 2)) / (centred @ centred)


@pytest.mark.parametrize(("n", "golden"), [(1, 0.328), (2, 0.183), (8, 0.0515), (64, 0.0072)])
def test_average_is_unbiased_and_its_variance_falls(n, golden):
    """For every size of the set its regression on x_t is the exact denoiser: slope s^2 / (s^2 + t^2) = 0.3289."""
    x_t, mean, denoised = draws(n, 1.0)
    slope, error = regression(x_t, mean)
    assert abs(slope - 0.49 / 1.49) < 4 * error, (slope, error)
    assert error < 0.002
    difference = mean - denoised
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(mean))
    squared = difference**2
    # The golden values were drawn too, with as many numbers, and rounded.
    assert abs(squared.mean() - golden) < 5.7 * squared.std() / np.sqrt(len(mean)) + 0.01 * golden, squared.mean()
    if n == 1:
        np.testing.assert_allclose(squared.mean(), 0.49 / 1.49, rtol=0.02)  # the posterior variance


@pytest.mark.parametrize(("t", "biased", "exact"), [(1.0, 0.28, 0.329), (0.2, 0.74, 0.925)])
def test_a_set_without_the_parent_would_be_biased(t, biased, exact):
    """Why x is always in its set. The same numbers, with the weight of x taken out by hand."""
    data, count, n = Gaussian(), 100_000, 8
    generator = np.random.default_rng(0)
    x = data.mean + data.std * generator.normal(size=count)
    x_t = x + t * generator.normal(size=count)
    references = data.mean + data.std * generator.normal(size=(count, n))
    logits = -((x_t[:, None] - references) ** 2) / (2 * t**2)
    mass = np.exp(logits - logits.max(axis=1, keepdims=True))
    slope, error = regression(x_t, (mass * references).sum(axis=1) / mass.sum(axis=1))
    assert abs(slope - biased) < 4 * error + 0.005
    slope, error = regression(*draws(n, t)[:2])
    assert abs(slope - exact) < 4 * error + 0.0005


def test_target_is_unbiased_on_another_path():
    """Regression of x_s on x_t: (alpha_s alpha_t std^2 + sigma_s sigma_t) / V_t, that of the pair of the same noise."""
    path, t, s, std = paths.cosine, 0.6, 0.35, 0.7
    x_t, mean, _ = draws(8, t, path)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ([float(c(jnp.asarray(r))) for c in path] for r in (t, s))
    x_s = alpha_s * mean + sigma_s / sigma_t * (x_t - alpha_t * mean)
    slope, error = regression(x_t, x_s)
    exact = (alpha_s * alpha_t * std**2 + sigma_s * sigma_t) / ((alpha_t * std) ** 2 + sigma_t**2)
    assert abs(slope - exact) < 4 * error
    assert error < 1e-3


def test_only_the_same_class_counts():
    """Two classes far apart and much noise: the average of an image lies within its class, and of others has both."""
    labels = jnp.asarray([0, 0, 1, 1, 1])
    np.testing.assert_array_equal(
        reference_sets.others(5, labels),
        [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 0]],
    )
    np.testing.assert_array_equal(reference_sets.others(3), 1 - np.eye(3))
    x = jnp.asarray([-1.0, -1.1, 1.0, 1.1, 1.2])[:, None] * jnp.ones((5, 4))
    z, t = jax.random.normal(jax.random.key(0), (5, 4)), jnp.full(5, 50.0)
    average = partial(posterior_mean, paths.edm, x, z, t, references=x)
    inside = average(allowed=reference_sets.others(5, labels))
    assert (inside[:2] < -1).all()
    assert (inside[2:] > 1).all()
    np.testing.assert_allclose(inside, direct_mean(paths.edm, x, z, t, x, reference_sets.others(5, labels)), rtol=1e-5)
    assert (jnp.abs(average(allowed=reference_sets.others(5))) < 0.6).all()


def test_the_batch_as_its_own_set_counts_each_image_once():
    x, z = jax.random.normal(jax.random.key(0), (2, 6, 3))
    t = jnp.full(6, 2.0)
    exact = direct_mean(paths.edm, x, z, t, x, reference_sets.others(6))
    got = posterior_mean(paths.edm, x, z, t, references=x, allowed=reference_sets.others(6))
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)


def test_copies_in_the_set_weigh_what_they_weigh():
    """Two copies of x and three of another image, at a noise level where both matter."""
    x = jnp.asarray([[0.4, -0.3]])
    z, other, t = jnp.asarray([[0.2, 1.0]]), jnp.asarray([[-0.5, 0.1]]), jnp.asarray([0.7])
    references = jnp.concatenate([x, x, other, other, other])
    allowed = jnp.ones((1, 5), bool)
    got = posterior_mean(paths.edm, x, z, t, references=references, allowed=allowed)
    ratio = np.exp(-np.sum((x + 0.7 * z - other) ** 2) / 0.98 + np.sum((0.7 * z) ** 2) / 0.98)
    np.testing.assert_allclose(got, (3 * x + 3 * ratio * other) / (3 + 3 * ratio), rtol=1e-5)


@pytest.mark.parametrize("t", [0.002, 0.05, 1.0, 30.0, 80.0])
def test_large_images_in_float32(t):
    """3072 elements: at t = 0.002 the logits of the others are -1e8 and x has all the weight, not nearly all."""
    x, z = jax.random.normal(jax.random.key(0), (2, 8, 32, 32, 3)) * jnp.asarray([0.5, 1.0]).reshape(2, 1, 1, 1, 1)
    time = jnp.full(8, t)
    got = posterior_mean(paths.edm, x, z, time, references=x, allowed=reference_sets.others(8))
    assert got.dtype == jnp.float32
    if t < 1:
        np.testing.assert_array_equal(got, x)
    exact = direct_mean(paths.edm, x, z, time, x, reference_sets.others(8)).reshape(x.shape)
    np.testing.assert_allclose(got, exact, atol=2e-5)


def test_step_to_the_data_is_the_average_and_takes_ects_first_stage():
    x, z = jax.random.normal(jax.random.key(0), (2, 6, 3))
    t = jnp.full(6, 1.2)
    arguments = {"references": x, "allowed": reference_sets.others(6)}
    mean = posterior_mean(paths.edm, x, z, t, **arguments)
    step = partial(reference_average, **arguments)
    np.testing.assert_allclose(step(paths.edm, x, z, t, jnp.zeros(6)), mean, rtol=1e-5, atol=1e-6)
    # The recipe then regresses on the average itself.
    loss, _ = consistency(
        lambda x, t: 0.5 * x, x, jax.random.key(0), pairs=lambda key, n: (t, jnp.zeros(n), jnp.ones(n)), step=step,
        distance=distances.l2, coupling=lambda key, x: (x, z),
    )  # fmt: skip
    np.testing.assert_allclose(loss, jnp.sum((0.5 * (x + 1.2 * z) - mean) ** 2, axis=1), rtol=1e-5)


def test_reference_average_trains_under_jit_with_finite_gradients():
    x = 0.5 * jax.random.normal(jax.random.key(0), (16, 4, 4, 3))
    law = partial(pairs.ect, stage=0, weight=partial(weights.edm_weight, sigma_data=0.5))
    step = partial(reference_sets.average, references=x, allowed=reference_sets.others(16))

    @jax.jit
    @jax.grad
    def gradient(a):
        net = lambda x, t: a * x / (1 + t.reshape(-1, 1, 1, 1))
        return consistency(net, x, jax.random.key(1), pairs=law, step=step)[0].mean()

    assert jnp.isfinite(gradient(1.0))
    assert gradient(1.0) != 0
