"""Batches over which an average is an expectation, not an estimate of one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from losses import paths
from tests.oracles import Gaussian, Mixture, gaussian_denoiser


class Nodes(NamedTuple):
    """Data and noise [B, 1] with weights [B] that sum to 1; `coupling` hands them to a recipe."""

    x: jax.Array
    z: jax.Array
    weights: jax.Array

    def coupling(self, key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The noise of each node."""
        return x, self.z

    def mean(self, values: jax.Array) -> jax.Array:
        """Weighted mean of one number per node."""
        return jnp.sum(self.weights * values)


def signs(data: Gaussian) -> Nodes:
    """x = m +- s, z = +-1: four points with the mean and covariance of (x, z), exact for anything quadratic."""
    x, z = (jnp.asarray(v, float).reshape(-1, 1) for v in np.meshgrid([-1, 1], [-1, 1]))
    return Nodes(data.mean + data.std * x, z, jnp.full(4, 0.25))


def posterior_signs(data: Gaussian, path: paths.Path, x_t: jax.Array, t: float) -> Nodes:
    """For each x_t two nodes, E[x | x_t] +- its standard deviation: the mean of a node and the next one is given x_t.

    Exact for anything quadratic, and symmetric about the mean as the posterior is. Nodes 2 k and 2 k + 1 belong to x_t
    number k.
    """
    alpha, sigma = path.alpha(jnp.asarray(t)), path.sigma(jnp.asarray(t))
    std = data.std * sigma / jnp.sqrt((alpha * data.std) ** 2 + sigma**2)
    mean = jnp.repeat(gaussian_denoiser(data, path, x_t, t), 2)
    x = mean + jnp.tile(jnp.asarray([-1.0, 1.0]), len(x_t)) * std
    z = (jnp.repeat(x_t, 2) - alpha * x) / sigma
    return Nodes(x[:, None], z[:, None], jnp.full(len(x), 1 / len(x)))


def mixture(data: Mixture, t: float, n: int = 500, inner: int = 16, path: paths.Path = paths.edm) -> Nodes:
    """Pairs with x_t on a grid of n points, and Gauss-Hermite nodes of each component's posterior at every point.

    A consistency function varies fast between modes, but little over x_s given x_t; so the integral over the
    posterior, which is where a consistency loss cancels, converges at once.
    """
    alpha, sigma = (float(c(jnp.asarray(t))) for c in path)
    points, masses = np.polynomial.hermite_e.hermegauss(inner)
    parts = []
    for weight, mean, std in zip(*data, strict=True):
        x_t, u = np.meshgrid(np.linspace(-4, 4, n), points, indexing="ij")
        variance = (alpha * std) ** 2 + sigma**2
        x = mean + alpha * std**2 / variance * (x_t - alpha * mean) + std * sigma / np.sqrt(variance) * u
        mass = weight * np.exp(-((x_t - alpha * mean) ** 2) / (2 * variance)) / np.sqrt(variance) * masses
        parts.append((x.ravel(), ((x_t - alpha * x) / sigma).ravel(), mass.ravel()))
    x, z, mass = (jnp.asarray(np.concatenate(v)) for v in zip(*parts, strict=True))
    return Nodes(x[:, None], z[:, None], mass / mass.sum())


def repeat(nodes: Nodes, n: int) -> Nodes:
    """Every node n times in a row."""
    return Nodes(jnp.repeat(nodes.x, n, axis=0), jnp.repeat(nodes.z, n, axis=0), jnp.repeat(nodes.weights, n) / n)
