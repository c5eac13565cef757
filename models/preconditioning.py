"""Preconditioning: from the raw network F to a denoiser, a consistency function or a velocity.

Each function takes a `Net` and returns a `Net`, so they compose with guidance and with any network.
Coefficients are computed in float32 or better, whatever the dtype of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .net import Net, at_least_float32, expand

# Below this noise level ln(t) is held constant: finite value, zero derivative.
SMALLEST_NOISE = 1e-8


def edm(F: Net, sigma_data: float = 0.5) -> Net:
    """Denoiser `D(x, t) = c_skip x + c_out F(c_in x, ln(t) / 4)` for x_t = x + t z.

    For data of standard deviation `sigma_data` the input and the regression target of F have unit
    variance at every t. Karras et al. 2022, table 1.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def denoiser(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        total = jnp.square(t) + sigma_data**2
        c_skip = sigma_data**2 / total
        c_out = t * sigma_data / jnp.sqrt(total)
        return expand(c_skip, x) * x + expand(c_out, x) * _inner(F, x, t, total)

    return denoiser


def vp(F: Net, beta_d: float = 19.9, beta_min: float = 0.1, steps: int = 1000) -> Net:
    """Denoiser `D(x, t) = x - t F(x / sqrt(t^2 + 1), (steps - 1) tau)` of Song et al. 2021's VP.

    F predicts noise. tau in [0, 1] is the time of level t: that of noise over signal on the path with
    beta(tau) = beta_min + beta_d tau. Karras et al. 2022, table 1.
    """

    def denoiser(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        tau = (jnp.sqrt(beta_min**2 + 2 * beta_d * jnp.log1p(jnp.square(t))) - beta_min) / beta_d
        c_in = 1.0 / jnp.sqrt(jnp.square(t) + 1)
        return x - expand(t, x) * at_least_float32(F(expand(c_in, x) * x, (steps - 1) * tau))

    return denoiser


def ve(F: Net) -> Net:
    """Denoiser `D(x, t) = x + t F(x, ln(t / 2))` of Song et al. 2021's VE. Karras et al. 2022, table 1."""

    def denoiser(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        return x + expand(t, x) * at_least_float32(F(x, jnp.log(jnp.maximum(t, SMALLEST_NOISE) / 2)))

    return denoiser


def nearest(t: Float[Array, " batch"], levels: Float[np.ndarray, " steps"]) -> Float[Array, " batch"]:
    """The step whose level is closest to t. iDDPMPrecond in the code of Karras et al. 2022."""
    return jnp.argmin(jnp.abs(t[:, None] - jnp.asarray(levels, t.dtype)), axis=1).astype(t.dtype)


def between(t: Float[Array, " batch"], levels: Float[np.ndarray, " steps"]) -> Float[Array, " batch"]:
    """A broken number of steps, straight in ln t between the levels: there it is theirs, and it has a derivative."""
    steps = jnp.arange(len(levels), dtype=t.dtype)
    return jnp.interp(jnp.log(jnp.maximum(t, SMALLEST_NOISE)), jnp.log(jnp.asarray(levels, t.dtype)), steps)


def discrete(F: Net, levels: Float[np.ndarray, " steps"], step: Callable[[Array, np.ndarray], Array] = nearest) -> Net:
    """Denoiser `D(x, t) = x - t F(x / sqrt(t^2 + 1), i)` of a prediction of noise that knows steps i = 0, 1, ... alone.

    With `nearest` D jumps between the levels; samplers do best on them. With `between` the network is asked what it was
    not trained on, and D is continuous. Further channels of F, which predict a variance, are not used.

    Args:
        F: the network.
        levels: of noise over signal at each step, ascending.
        step: (t, levels) -> i, `nearest` or `between`.
    """

    def denoiser(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        c_in = 1.0 / jnp.sqrt(jnp.square(t) + 1)
        out = at_least_float32(F(expand(c_in, x) * x, step(t, levels)))[..., : x.shape[-1]]
        return x - expand(t, x) * out

    return denoiser


def consistency(F: Net, sigma_data: float = 0.5, sigma_min: float = 0.0) -> Net:
    """Consistency function `f(x, t) = c_skip x + c_out F(c_in x, ln(t) / 4)` with f(x, sigma_min) = x.

    The shift by `sigma_min` enters the denominator of c_skip and the numerator of c_out alone, as in
    the code of Song et al. 2023. Value and derivatives stay finite at t = sigma_min = 0.

    Raises:
        ValueError: `sigma_data` is not positive or `sigma_min` is negative.
    """
    require_positive("sigma_data", sigma_data)
    if not 0.0 <= sigma_min < math.inf:
        raise ValueError(f"sigma_min must be zero or positive, got {sigma_min}")

    def consistency_function(
        x: Float[Array, "batch *shape"], t: Float[Array, " batch"]
    ) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        total = jnp.square(t) + sigma_data**2
        shifted = t - sigma_min
        c_skip = 1.0 / (1.0 + jnp.square(shifted / sigma_data))
        c_out = shifted * sigma_data / jnp.sqrt(total)
        return expand(c_skip, x) * x + expand(c_out, x) * _inner(F, x, t, total)

    return consistency_function


def linear_consistency(F: Net, sigma_data: float = 0.5, sigma_max: float = 80.0, sigma_min: float = 0.0) -> Net:
    """Consistency function `f(x, t) = c_skip x + c_out F(c_in x, ln(t) / 4)` for x_t = (1 - t/sigma_max) x + t z.

    c_skip and c_out are those of a denoiser on that path, with t - sigma_min and 1 - (t - sigma_min) / (sigma_max -
    sigma_min) in place of t and alpha, so that f(x, sigma_min) = x; the denominator of c_out keeps t, as in
    `consistency`. The linear kernel of Silvestri et al. 2025.

    Raises:
        ValueError: unless sigma_data > 0 and 0 <= sigma_min < sigma_max.
    """
    require_positive("sigma_data", sigma_data)
    if not 0.0 <= sigma_min < sigma_max < math.inf:
        raise ValueError(f"linear_consistency needs 0 <= sigma_min < sigma_max, got {sigma_min} and {sigma_max}")

    def consistency_function(
        x: Float[Array, "batch *shape"], t: Float[Array, " batch"]
    ) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        total = jnp.square(t) + jnp.square((1.0 - t / sigma_max) * sigma_data)
        shifted = t - sigma_min
        alpha = 1.0 - shifted / (sigma_max - sigma_min)
        c_skip = sigma_data**2 * alpha / (jnp.square(shifted) + jnp.square(sigma_data * alpha))
        c_out = shifted * sigma_data / jnp.sqrt(total)
        return expand(c_skip, x) * x + expand(c_out, x) * _inner(F, x, t, total)

    return consistency_function


def trigflow(F: Net, sigma_data: float = 0.5) -> Net:
    """Function `cos(t) x - sigma_data sin(t) F(x / sigma_data, t)` for x_t = cos(t) x + sin(t) sigma_data z.

    One formula for two meanings of F: with the velocity of the ODE in units of `sigma_data` it is the
    denoiser, with a consistency network it is the consistency function. t is an angle in [0, pi/2],
    and at t = 0 the result is x. Lu and Song 2024.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def denoiser(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        out = at_least_float32(F(x / sigma_data, t))
        return expand(jnp.cos(t), x) * x - sigma_data * expand(jnp.sin(t), x) * out

    return denoiser


def latent_consistency(D: Net, sigma_data: float = 0.5, timestep_scale: float = 10.0) -> Net:
    """Consistency function `f(x, t) = c_skip x + c_out D(x, t)` of a data prediction D, for timesteps t: LCM's.

    c_skip = sigma_data^2 / (tau^2 + sigma_data^2) and c_out = tau / sqrt(tau^2 + sigma_data^2) with
    tau = timestep_scale t. f(x, 0) = x, and from t = 1 on f is nearly D: c_skip is 0.0025 there. 0.5 is
    the constant that was published, whatever the standard deviation of the data. Luo et al. 2023's code.

    Raises:
        ValueError: `sigma_data` or `timestep_scale` is not positive.
    """
    require_positive("sigma_data", sigma_data)
    require_positive("timestep_scale", timestep_scale)

    def consistency_function(
        x: Float[Array, "batch *shape"], t: Float[Array, " batch"]
    ) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        scaled = timestep_scale * t
        c_skip = sigma_data**2 / (jnp.square(scaled) + sigma_data**2)
        c_out = scaled / jnp.hypot(scaled, sigma_data)
        return expand(c_skip, x) * x + expand(c_out, x) * at_least_float32(D(x, t))

    return consistency_function


def edm_velocity(F: Net, sigma_data: float = 0.5) -> Net:
    """Velocity `v(x, t) = (t - sigma_data^2 (1-t)) / n^2 x - sigma_data / n F(x / n, ln(t / (1-t)) / 4)`.

    That of the denoiser `edm` on the straight path x_t = (1 - t) x + t z, t in [0, 1], with
    n^2 = t^2 + sigma_data^2 (1-t)^2: an EDM network as it is starts a rectified flow. At noise level t / (1-t) and for
    x / (1-t), (x - D) / t has lost here what would be 0/0 at either end; t is held within [1e-5, 1 - 1e-5] for the
    logarithm alone, where the derivative is then 0. EDM trains up to t = 0.988. Lee et al. 2024, section 4.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def velocity_function(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), at_least_float32(t)
        total = jnp.square(t) + jnp.square(sigma_data * (1 - t))
        n = jnp.sqrt(total)
        inside = jnp.clip(t, 1e-5, 1 - 1e-5)
        out = at_least_float32(F(x / expand(n, x), (jnp.log(inside) - jnp.log1p(-inside)) / 4))
        return expand((t - sigma_data**2 * (1 - t)) / total, x) * x - expand(sigma_data / n, x) * out

    return velocity_function


def velocity(F: Net, time_scale: float = 1.0) -> Net:
    """Velocity `v(x, t) = F(x, time_scale t)`: the network's output as it is.

    `time_scale` also multiplies the derivative with respect to t, which methods that differentiate
    the network in time feel directly; papers differ (SiT 1, rectified flow 999, MeanFlow 1).
    """
    return lambda x, t: at_least_float32(F(x, time_scale * at_least_float32(t)))


def _inner(F: Net, x: Array, t: Array, total: Array) -> Array:
    """`F(c_in x, c_noise)` of the variance-exploding path; `total` is t^2 + sigma_data^2."""
    c_in = 1.0 / jnp.sqrt(total)
    c_noise = jnp.log(jnp.maximum(t, SMALLEST_NOISE)) / 4.0
    return at_least_float32(F(expand(c_in, x) * x, c_noise))


def require_positive(name: str, value: float) -> None:
    """Refuse a scale that is none."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
