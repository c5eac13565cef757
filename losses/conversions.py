"""Conversions between data, noise, velocity and score, written once for every path.

At a point x_t of a path any one of x, z, v = dx_t/dt and score = grad log p(x_t | x) fixes the others. Each
function takes one of them and gives all four; what a caller does not use is never computed under jit.

The algebra divides by alpha, sigma or the Wronskian sigma alpha' - alpha sigma', so x and v are infinite from z
where alpha = 0 and z and score from x where sigma = 0. Nothing here clips.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from .paths import Path, at_least_float32, coefficients, expand
from .types import Array, AverageVelocity, Batch, FlowMap, Net, PerExample


class Components(NamedTuple):
    """The four ways to name one prediction at (x_t, t), each shaped like x_t."""

    x: Batch
    z: Batch
    v: Batch
    score: Batch


def from_x(path: Path, x_t: Batch, x: Batch, t: PerExample) -> Components:
    """Components of a data prediction (a denoiser's output); singular where sigma = 0."""
    c = coefficients(path, t, x_t)
    z = (x_t - c.alpha * x) / c.sigma
    return Components(x=x, z=z, v=c.alpha_rate * x + c.sigma_rate * z, score=-z / c.sigma)


def from_z(path: Path, x_t: Batch, z: Batch, t: PerExample) -> Components:
    """Components of a noise prediction; singular where alpha = 0."""
    c = coefficients(path, t, x_t)
    x = (x_t - c.sigma * z) / c.alpha
    return Components(x=x, z=z, v=c.alpha_rate * x + c.sigma_rate * z, score=-z / c.sigma)


def from_v(path: Path, x_t: Batch, v: Batch, t: PerExample) -> Components:
    """Components of a velocity prediction; regular wherever the Wronskian is not 0."""
    c = coefficients(path, t, x_t)
    wronskian = c.sigma * c.alpha_rate - c.alpha * c.sigma_rate
    x = (c.sigma * v - c.sigma_rate * x_t) / wronskian
    z = (c.alpha_rate * x_t - c.alpha * v) / wronskian
    return Components(x=x, z=z, v=v, score=-z / c.sigma)


def from_score(path: Path, x_t: Batch, score: Batch, t: PerExample) -> Components:
    """Components of a score prediction; singular where alpha = 0."""
    sigma = coefficients(path, t, x_t).sigma
    return from_z(path, x_t, -sigma * score, t)


def edm_on_path(net: Net, path: Path) -> Net:
    """A denoiser or consistency function of the EDM path, read on another: net(x_t / alpha, sigma / alpha).

    Both paths have the same trajectories up to scale, and both kinds of network end at data, so either stays what it
    is. Infinite where alpha = 0.
    """

    def on_path(x_t: Batch, t: PerExample) -> Batch:
        x_t, t = at_least_float32(x_t), at_least_float32(t)
        alpha, sigma = path.alpha(t), path.sigma(t)
        return net(x_t / expand(alpha, x_t), sigma / alpha)

    return on_path


def trigflow_on_path(net: Net, path: Path, *, sigma_data: float) -> Net:
    """A denoiser or consistency function of `scaled(trig, sigma_data)`, read on another path; regular everywhere.

    The angle is arctan(sigma / (sigma_data alpha)) and the state x_t / sqrt(alpha^2 + (sigma / sigma_data)^2).
    """

    def on_path(x_t: Batch, t: PerExample) -> Batch:
        x_t, t = at_least_float32(x_t), at_least_float32(t)
        alpha, sigma = path.alpha(t), path.sigma(t) / sigma_data
        return net(x_t / expand(jnp.hypot(alpha, sigma), x_t), jnp.arctan2(sigma, alpha))

    return on_path


def linear_velocity_to_denoiser(v: Net, path: Path) -> Net:
    """The denoiser on a path of a velocity on `linear`, at its time sigma / (alpha + sigma); regular everywhere."""

    def D(x_t: Batch, t: PerExample) -> Batch:
        x_t, t = at_least_float32(x_t), at_least_float32(t)
        alpha, sigma = path.alpha(t), path.sigma(t)
        x_t, t = x_t / expand(alpha + sigma, x_t), sigma / (alpha + sigma)
        return x_t - expand(t, x_t) * v(x_t, t)

    return D


def denoiser_to_velocity(path: Path, D: Net) -> Net:
    """The velocity E[dx_t/dt | x_t] on `path` of a denoiser D on it; 0/0 where sigma = 0."""
    return lambda x_t, t: from_x(path, x_t, D(x_t, t), t).v


def noise_to_velocity(path: Path, net: Net) -> Net:
    """The velocity E[dx_t/dt | x_t] on `path` of a noise prediction E[z | x_t] on it; infinite where alpha = 0."""
    return lambda x_t, t: from_z(path, x_t, net(x_t, t), t).v


def score_to_velocity(path: Path, net: Net) -> Net:
    """The velocity E[dx_t/dt | x_t] on `path` of the score grad log p_t(x_t) on it; infinite where alpha = 0."""
    return lambda x_t, t: from_score(path, x_t, net(x_t, t), t).v


def ddim_jump(path: Path, x_t: Batch, denoised: Batch, t: PerExample, s: PerExample) -> Batch:
    """State at s if the data and the noise predicted at t stay what they are (Song et al. 2020, eq. 12).

    alpha_s D + sigma_s (x_t - alpha_t D) / sigma_t: DDIM, TCD's exponential integrator of first order and PCM's jump.
    x_t to the bit where s = t; 0/0 where sigma_t = 0.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        expand(c, x_t) for c in (path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s))
    )
    ratio = sigma_s / sigma_t
    return ratio * x_t + (alpha_s - alpha_t * ratio) * denoised


def denoiser_to_flow_map(path: Path, D: Net) -> FlowMap:
    """The DDIM jump of a denoiser: the flow map that PCM and TCD without a second time input train.

    A network that is also told s is one by `lambda x, t, s: ddim_jump(path, x, net(x, t, s), t, s)`.
    """
    return lambda x_t, t, s: ddim_jump(path, x_t, D(x_t, t), t, s)


def second_order_jump(path: Path, D: Net, x_t: Batch, t: PerExample, s: PerExample) -> Batch:
    """State at s by DPM-Solver++ (2S): `ddim_jump` with a data prediction corrected half way (Lu et al. 2022, alg. 1).

    D is called at t and at r = (t + s) / 2. With lambda = ln(alpha / sigma) and share = (lambda_r - lambda_t) /
    (lambda_s - lambda_t), the prediction is D_t + (D_r - D_t) / (2 share). The error is O((lambda_s - lambda_t)^3).
    x_t to the bit where s = t; sigma_s must be positive.
    """
    r = (t + s) / 2
    D_t = D(x_t, t)
    D_r = D(ddim_jump(path, x_t, D_t, t, r), r)
    log_ratio_t, log_ratio_r, log_ratio_s = (jnp.log(path.alpha(time) / path.sigma(time)) for time in (t, r, s))
    share = (log_ratio_r - log_ratio_t) / jnp.where(s < t, log_ratio_s - log_ratio_t, 1.0)
    return ddim_jump(path, x_t, D_t + (D_r - D_t) / (2 * expand(jnp.where(s < t, share, 0.5), x_t)), t, s)


def denoiser_to_second_order_flow_map(path: Path, D: Net) -> FlowMap:
    """The second-order jump of a denoiser: TCD's TCF(2), two calls of a network that is not told s."""
    return lambda x_t, t, s: second_order_jump(path, D, x_t, t, s)


def average_velocity_to_flow_map(u: AverageVelocity) -> FlowMap:
    """X(x_t, t, s) = x_t - (t - s) u(x_t, t, s): the jump of MeanFlow and Shortcut; x_t to the bit where s = t."""
    return lambda x_t, t, s: x_t - expand(t - s, x_t) * u(x_t, t, s)


class Jump(NamedTuple):
    """How a jump x_s = skip x_t + out F is made of a raw network F: two coefficients, each of (t[B], s[B]) -> [B]."""

    skip: Callable[[Array, Array], Array]
    out: Callable[[Array, Array], Array]


def euler_jump(sigma_data: float = 0.5) -> Jump:
    """x_t - (t - s) sigma_data F on `scaled(linear, sigma_data)`: IMM on ImageNet (Zhou et al. 2025, Euler-FM)."""
    return Jump(skip=lambda t, s: jnp.ones_like(t), out=lambda t, s: -(t - s) * sigma_data)


def edm_jump(path: Path, sigma_data: float = 0.5) -> Jump:
    """EDM's preconditioning of a jump: IMM on CIFAR-10 (Zhou et al. 2025, Simple-EDM).

    skip is the regression of x_s on x_t for data N(0, sigma_data^2) and the same noise; at s = t it is 1 and out is 0.

    Args:
        path: With noise of standard deviation sigma_data, such as `scaled(linear, 0.5)`.
        sigma_data: Standard deviation of data and noise.
    """

    def parts(t: Array, s: Array) -> tuple[Array, Array, Array]:
        alpha_t, sigma_t, alpha_s, sigma_s = (
            path.alpha(t), path.sigma(t) / sigma_data, path.alpha(s), path.sigma(s) / sigma_data,
        )  # fmt: skip
        return alpha_t * alpha_s + sigma_t * sigma_s, alpha_t * sigma_s - alpha_s * sigma_t, alpha_t**2 + sigma_t**2

    def skip(t: Array, s: Array) -> Array:
        inner, _, total = parts(t, s)
        return inner / total

    def out(t: Array, s: Array) -> Array:
        _, outer, total = parts(t, s)
        return outer * sigma_data / jnp.sqrt(total)

    return Jump(skip, out)


def jump_to_flow_map(path: Path, jump: Jump, F: FlowMap, *, sigma_data: float = 0.5) -> FlowMap:
    """The flow map skip(t, s) x_t + out(t, s) F(x_t / std(t), t, s) of a raw network.

    std(t)^2 = alpha^2 sigma_data^2 + sigma^2 is the variance of x_t for data of that of the name: F sees unit variance.
    """

    def flow_map(x_t: Batch, t: PerExample, s: PerExample) -> Batch:
        x_t = at_least_float32(x_t)
        std = expand(jnp.hypot(path.alpha(t) * sigma_data, path.sigma(t)), x_t)
        return expand(jump.skip(t, s), x_t) * x_t + expand(jump.out(t, s), x_t) * at_least_float32(F(x_t / std, t, s))

    return flow_map
