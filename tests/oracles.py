"""Closed forms for Gaussian and two-mode data on any path: what the tests of every island compare with.

Notation: x_t = alpha x + sigma z with z ~ N(0, I). x_t is [B, ...], t and s are [B] or scalars. Nothing here is
shared with the code under test except the two coefficients of a path and jax's derivative of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from losses import paths

Array = jax.Array

# Data and path are hashable values; one program for each pair.
_compiled = partial(jax.jit, static_argnums=(0, 1))


class Interval(NamedTuple):
    """A path and times inside the interval on which it is used."""

    path: paths.Path
    low: float
    high: float


PATHS = {
    "edm": Interval(paths.edm, 0.01, 80.0),
    "linear": Interval(paths.linear, 0.02, 0.98),
    "trig": Interval(paths.trig, 0.02, 1.55),
    "cosine": Interval(paths.cosine, 0.02, 0.98),
    "linear_beta": Interval(paths.linear_beta(), 0.02, 0.98),
    "trigflow": Interval(paths.scaled(paths.trig, 0.5), 0.02, 1.55),
}


class Gaussian(NamedTuple):
    """Data N(mean, std^2 I) in any number of dimensions."""

    mean: float = 0.3
    std: float = 0.7


class _Marginal(NamedTuple):
    alpha: Array
    sigma: Array
    alpha_rate: Array
    sigma_rate: Array
    variance: Array  # V_t = alpha^2 std^2 + sigma^2, of x_t given nothing


def _like(t: Any, x: Array) -> Array:
    t = jnp.asarray(t, x.dtype)
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def _marginal(std: Any, path: paths.Path, t: Array) -> _Marginal:
    alpha, alpha_rate = jax.jvp(path.alpha, (t,), (jnp.ones_like(t),))
    sigma, sigma_rate = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
    return _Marginal(alpha, sigma, alpha_rate, sigma_rate, (alpha * std) ** 2 + sigma**2)


@_compiled
def gaussian_denoiser(data: Gaussian, path: paths.Path, x_t: Array, t: Any) -> Array:
    """E[x | x_t] = m + alpha s^2 / V_t (x_t - alpha m)."""
    c = _marginal(data.std, path, _like(t, x_t))
    return data.mean + c.alpha * data.std**2 / c.variance * (x_t - c.alpha * data.mean)


@_compiled
def gaussian_score(data: Gaussian, path: paths.Path, x_t: Array, t: Any) -> Array:
    """Gradient of log p_t: -(x_t - alpha m) / V_t."""
    c = _marginal(data.std, path, _like(t, x_t))
    return -(x_t - c.alpha * data.mean) / c.variance


@_compiled
def gaussian_velocity(data: Gaussian, path: paths.Path, x_t: Array, t: Any) -> Array:
    """E[dx_t/dt | x_t] = alpha' m + V_t' / (2 V_t) (x_t - alpha m)."""
    c = _marginal(data.std, path, _like(t, x_t))
    half_variance_rate = c.alpha * c.alpha_rate * data.std**2 + c.sigma * c.sigma_rate
    return c.alpha_rate * data.mean + half_variance_rate / c.variance * (x_t - c.alpha * data.mean)


@_compiled
def gaussian_flow_map(data: Gaussian, path: paths.Path, x_t: Array, t: Any, s: Any) -> Array:
    """State at s of the ODE through x_t at t: alpha_s m + sqrt(V_s / V_t) (x_t - alpha_t m)."""
    at_t, at_s = (_marginal(data.std, path, _like(r, x_t)) for r in (t, s))
    scale = jnp.sqrt(at_s.variance / at_t.variance)
    return at_s.alpha * data.mean + scale * (x_t - at_t.alpha * data.mean)


@partial(jax.jit, static_argnums=0)
def gaussian_average_velocity(data: Gaussian, x_t: Array, t: Any, s: Any) -> Array:
    """(x_t - X(x_t, t, s)) / (t - s) on the straight path, without cancellation; the velocity where s = t.

    1 - sqrt(V_s / V_t) = (V_t - V_s) / (V_t (1 + sqrt(V_s / V_t))), and t - s divides V_t - V_s.
    """
    t, s = _like(t, x_t), _like(s, x_t)
    variance_t, variance_s = (((1 - r) * data.std) ** 2 + r**2 for r in (t, s))
    slope = (t + s - data.std**2 * (2 - t - s)) / (variance_t * (1 + jnp.sqrt(variance_s / variance_t)))
    return -data.mean + slope * (x_t - (1 - t) * data.mean)


@_compiled
def gaussian_consistency(data: Gaussian, path: paths.Path, x_t: Array, t: Any, end: float = 0.0) -> Array:
    """Consistency function f(x_t, t): the flow map to time `end`."""
    return gaussian_flow_map(data, path, x_t, t, end)


class Mixture(NamedTuple):
    """One-dimensional data sum_k weights_k N(means_k, stds_k^2); every element of a batch is one draw."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-0.8, 0.5)
    stds: tuple[float, ...] = (0.2, 0.3)


class _Modes(NamedTuple):
    """Per component, on a new last axis: marginal, centred state in standard units, posterior weight."""

    marginal: _Marginal
    means: Array
    z: Array
    posterior: Array


def _modes(data: Mixture, path: paths.Path, x_t: Array, t: Any) -> _Modes:
    weights, means, stds = (jnp.asarray(v, x_t.dtype) for v in data)
    c = _marginal(stds, path, _like(t, x_t)[..., None])
    z = (x_t[..., None] - c.alpha * means) / jnp.sqrt(c.variance)
    posterior = jax.nn.softmax(jnp.log(weights) - 0.5 * z**2 - 0.5 * jnp.log(c.variance), axis=-1)
    return _Modes(c, means, z, posterior)


@_compiled
def mixture_denoiser(data: Mixture, path: paths.Path, x_t: Array, t: Any) -> Array:
    """E[x | x_t]: the Gaussian denoiser of each component, weighted by its posterior probability."""
    c, means, z, posterior = _modes(data, path, x_t, t)
    stds = jnp.asarray(data.stds, x_t.dtype)
    return jnp.sum(posterior * (means + c.alpha * stds**2 / jnp.sqrt(c.variance) * z), axis=-1)


@_compiled
def mixture_velocity(data: Mixture, path: paths.Path, x_t: Array, t: Any) -> Array:
    """E[dx_t/dt | x_t]: the Gaussian velocity of each component, weighted by its posterior probability."""
    c, means, z, posterior = _modes(data, path, x_t, t)
    half_variance_rate = c.alpha * c.alpha_rate * jnp.asarray(data.stds, x_t.dtype) ** 2 + c.sigma * c.sigma_rate
    return jnp.sum(posterior * (c.alpha_rate * means + half_variance_rate / jnp.sqrt(c.variance) * z), axis=-1)


@_compiled
def mixture_logit_cdf(data: Mixture, path: paths.Path, x_t: Array, t: Any) -> Array:
    """Log of P(X_t < x_t) / P(X_t > x_t): precise to 12 standard deviations in float32, 37 in float64."""
    z = _modes(data, path, x_t, t).z
    weights = jnp.asarray(data.weights, x_t.dtype)
    return jnp.log(ndtr(z) @ weights) - jnp.log(ndtr(-z) @ weights)


@_compiled
def mixture_cdf(data: Mixture, path: paths.Path, x_t: Array, t: Any) -> Array:
    """P(X_t < x_t) = sum_k weights_k Phi((x_t - alpha means_k) / sqrt(V_k))."""
    return jax.nn.sigmoid(mixture_logit_cdf(data, path, x_t, t))


@_compiled
def mixture_flow_map(data: Mixture, path: paths.Path, x_t: Array, t: Any, s: Any) -> Array:
    """State at s of the ODE through x_t at t. In one dimension the ODE keeps quantiles: CDF_s^-1(CDF_t(x_t)).

    By bisection, in the precision of x_t; derivatives in x_t, t and s are those of the implicit function.
    """
    goal = mixture_logit_cdf(data, path, x_t, t)
    at_s, means, _, _ = _modes(data, path, x_t, s)
    z = _modes(data, path, x_t, t).z
    # Each component's quantile of the same mass lies between the smallest and the largest z, hence so does theirs.
    low = jnp.min(at_s.alpha * means + jnp.sqrt(at_s.variance) * z.min(axis=-1, keepdims=True), axis=-1)
    high = jnp.max(at_s.alpha * means + jnp.sqrt(at_s.variance) * z.max(axis=-1, keepdims=True), axis=-1)

    def logit(x: Array) -> Array:
        return mixture_logit_cdf(data, path, x, s)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        below = logit(middle) < goal
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, jax.lax.stop_gradient((low, high)))
    # One Newton step: its value is a rounding error, its derivative that of the implicit function.
    root = jax.lax.stop_gradient((low + high) / 2)
    slope = jax.lax.stop_gradient(jax.jvp(logit, (root,), (jnp.ones_like(root),))[1])
    return root - (logit(root) - goal) / slope


@_compiled
def mixture_consistency(data: Mixture, path: paths.Path, x_t: Array, t: Any, end: float = 0.0) -> Array:
    """Consistency function f(x_t, t): the flow map to time `end`."""
    return mixture_flow_map(data, path, x_t, t, end)


def constant_times(t: float) -> Callable[[Array, int], Array]:
    """The time law that always answers t."""
    return lambda key, n: jnp.full((n,), t)
