"""Editing by the exact consistency function of correlated Gaussian data: every step is affine, and its law is known."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import samplers.consistency
import samplers.editing
from samplers import edit, editing, grids, sample_keys
from samplers.editing import Task
from tests.oracles import PATHS

EDM = PATHS["edm"].path


class Correlated(NamedTuple):
    """Data N(mean, covariance) in three elements, of which the first is known in some orthonormal basis."""

    mean: np.ndarray
    covariance: np.ndarray

    def scale(self, path, t):
        """f(x, t) = mean + scale (x - alpha mean) is the exact consistency function."""
        alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors @ np.diag(np.sqrt(values / (alpha**2 * values + sigma**2))) @ vectors.T

    def consistency(self, path, x, t):
        """The same on a batch of states."""
        values, vectors = np.linalg.eigh(self.covariance)
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        scaled = (x - alpha * self.mean) @ vectors * jnp.sqrt(values / (alpha**2 * values + sigma**2))
        return self.mean + scaled @ vectors.T

    def posterior(self, known):
        """Mean and covariance of elements 1 and 2 given element 0."""
        gain = self.covariance[1:, 0] / self.covariance[0, 0]
        return (
            self.mean[1:] + gain * (known - self.mean[0]),
            self.covariance[1:, 1:] - np.outer(gain, self.covariance[0, 1:]),
        )


DATA = Correlated(np.asarray([0.2, -0.4, 0.3]), np.asarray([[0.5, 0.4, 0.25], [0.4, 0.75, -0.1], [0.25, -0.1, 0.4]]))
ROTATION = np.linalg.qr(np.asarray([[1.0, 2.0, 0.5], [-1.0, 0.3, 1.0], [0.2, 1.0, -2.0]]))[0]
ROTATED = Correlated(ROTATION.T @ DATA.mean, ROTATION.T @ DATA.covariance @ ROTATION)
"""Data of which ROTATION x has the law of DATA: the task in that basis is the same as inpainting DATA."""

MASK = np.asarray([False, True, True])
GAUSSIAN_TASKS = {
    "inpainting": (DATA, editing.inpainting(MASK)),
    "rotated": (ROTATED, Task(lambda x: x @ ROTATION.T, lambda x: x @ ROTATION, MASK)),
}
KNOWN = 1.1


def recursion(path, times):
    """Mean and covariance of the unknown elements after calls at these times, from 0: every step is affine."""
    mean, covariance = np.zeros(2), np.zeros((2, 2))
    for t in map(jnp.asarray, times):
        alpha, sigma, scale = float(path.alpha(t)), float(path.sigma(t)), DATA.scale(path, t)
        offset = np.append(KNOWN - DATA.mean[0], mean - DATA.mean[1:])
        mean = DATA.mean[1:] + alpha * scale[1:] @ offset
        inner = scale[1:, 1:]
        covariance = alpha**2 * inner @ covariance @ inner.T + sigma**2 * scale[1:] @ scale[1:].T
    return mean, covariance


def fixed_point(path, t):
    """Where the recursion stays when the time does: m_u + (1 - a K_uu)^-1 a K_uk (y - m_k), and its covariance."""
    alpha, sigma, scale = (float(path.alpha(t)), float(path.sigma(t)), DATA.scale(path, t))
    inner = alpha * scale[1:, 1:]
    mean = DATA.mean[1:] + np.linalg.solve(np.eye(2) - inner, alpha * scale[1:, 0] * (KNOWN - DATA.mean[0]))
    added = sigma**2 * scale[1:] @ scale[1:].T
    flat = np.linalg.solve(np.eye(4) - np.kron(inner, inner), added.ravel())
    return mean, flat.reshape(2, 2)


def inpaint(data, task, path, times, keys):
    """The unknown elements, in the basis of the task."""
    reference = jnp.broadcast_to(task.inverse(jnp.asarray([[KNOWN, 5.0, -5.0]])), (len(keys), 3))
    got = edit(partial(data.consistency, path), reference, times, keys, task=task, path=path)
    return np.asarray(task.transform(got))[:, 1:]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", GAUSSIAN_TASKS)
@pytest.mark.parametrize(("path_name", "times"), [("edm", [80.0, 2.0, 0.4]), ("linear", [1.0, 0.7, 0.3])])
def test_moments_follow_the_recursion(monkeypatch, name, path_name, times):
    """To rounding error: one sample for each sign of each element of each draw, so that the noise is exactly white."""
    data, task = GAUSSIAN_TASKS[name]
    size = 3 * len(times)
    signs = np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
    draws = jnp.asarray(signs.reshape(2 * size, len(times), 3).swapaxes(0, 1))
    monkeypatch.setattr(samplers.editing, "initial", lambda keys, shape: draws[0])
    monkeypatch.setattr(samplers.consistency, "fresh", lambda keys, number, like: draws[number])
    got = inpaint(data, task, PATHS[path_name].path, times, sample_keys(0, jnp.arange(2 * size)))
    mean, covariance = recursion(PATHS[path_name].path, times)
    np.testing.assert_allclose(got.mean(axis=0), mean, rtol=1e-10)
    np.testing.assert_allclose(np.cov(got.T, bias=True), covariance, rtol=1e-10)


def held(t, steps):
    """Times that fall strictly and, to nine digits, stay where they are."""
    return t * (1 + 1e-12 * np.arange(steps, 0, -1))


@pytest.mark.usefixtures("float64", "no_noise")
@pytest.mark.parametrize("name", ["edm", "linear"])
@pytest.mark.parametrize(("t", "steps"), [(0.8, 200), (0.2, 2000)])
def test_at_a_held_time_the_mean_goes_to_its_fixed_point(name, t, steps):
    path = PATHS[name].path
    (got,) = inpaint(*GAUSSIAN_TASKS["inpainting"], path, held(t, steps), sample_keys(0, jnp.arange(1)))
    np.testing.assert_allclose(got, fixed_point(path, jnp.asarray(t))[0], rtol=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["edm", "linear"])
def test_that_fixed_point_is_the_posterior_only_at_time_zero(name):
    """Its distance falls with t^2; at large t what is known drowns in noise, and it is the prior."""
    path = PATHS[name].path
    posterior = np.concatenate([part.ravel() for part in DATA.posterior(KNOWN)])

    def distance(t):
        return np.abs(np.concatenate([part.ravel() for part in fixed_point(path, jnp.asarray(t))]) - posterior).max()

    np.testing.assert_allclose(np.log2(distance(0.02) / distance(0.01)), 2, atol=0.05)
    assert distance(0.5) > 0.1
    high = jnp.asarray(1000.0 if name == "edm" else 1.0)
    np.testing.assert_allclose(fixed_point(path, high)[0], DATA.mean[1:], atol=1e-3)
    np.testing.assert_allclose(fixed_point(path, high)[1], DATA.covariance[1:, 1:], atol=1e-3)


@pytest.mark.usefixtures("float64", "no_noise")
@pytest.mark.parametrize(("n", "error"), [(2, 0.6984), (10, 0.3685), (40, 0.1576), (400, 0.0276)])
def test_more_levels_come_closer_to_the_posterior_mean(n, error):
    """From 80 to 0.05; the mean without a reference is 0.72 away."""
    grid = grids.karras(n, sigma_min=0.05)
    (got,) = inpaint(*GAUSSIAN_TASKS["rotated"], EDM, grid, sample_keys(0, jnp.arange(1)))
    assert np.abs(got - DATA.posterior(KNOWN)[0]).max() == pytest.approx(error, abs=6e-5)


@pytest.mark.usefixtures("float64")
def test_samples_at_a_held_time_have_the_covariance_of_the_fixed_point():
    """With the noise of the keys, to 4 standard errors."""
    n = 20_000
    got = inpaint(*GAUSSIAN_TASKS["inpainting"], EDM, held(0.8, 40), sample_keys(0, jnp.arange(n)))
    mean, covariance = fixed_point(EDM, jnp.asarray(0.8))
    variance = np.diag(covariance)
    assert (np.abs(got.mean(axis=0) - mean) < 4 * np.sqrt(variance / n)).all()
    error = np.sqrt((covariance**2 + np.outer(variance, variance)) / n)
    assert (np.abs(np.cov(got.T) - covariance) < 4 * error).all()
