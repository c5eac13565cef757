"""Translation: the F of one preconditioning from a network that was trained under another, exactly.

So a student starts as its teacher is, whatever either of them predicts. Each function takes a `Net` and returns one.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .net import Net, at_least_float32, expand
from .preconditioning import SMALLEST_NOISE, require_positive


def edm_of_denoiser(D: Net, sigma_data: float = 0.5) -> Net:
    """The F of which `preconditioning.edm` makes this denoiser: F(c_in x, ln(t) / 4) = (D(x, t) - c_skip x) / c_out.

    So a network that was trained under another preconditioning is taken where one of EDM's is. Where t is small D - x
    is a difference of nearly equal numbers; c_out, by which F is multiplied again, makes its rounding as small.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def F(x: Float[Array, "batch *shape"], c_noise: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, t = at_least_float32(x), jnp.exp(4 * at_least_float32(c_noise))
        n = jnp.sqrt(jnp.square(t) + sigma_data**2)
        x_t = expand(n, x) * x
        return expand(n / (t * sigma_data), x) * (D(x_t, t) - expand(jnp.square(sigma_data / n), x) * x_t)

    return F


def edm_of_velocity(v: Net, sigma_data: float = 0.5) -> Net:
    """F of `preconditioning.edm` of a velocity on the straight path (1 - t) x + t z: the inverse of `edm_velocity`.

    F(x, c_noise) = ((t - sigma_data^2 (1-t)) x - n v(n x, t)) / sigma_data at t = sigma / (1 + sigma), where
    n^2 = t^2 + sigma_data^2 (1-t)^2; nothing cancels at either end.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def F(x: Float[Array, "batch *shape"], c_noise: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        x, sigma = at_least_float32(x), jnp.exp(4 * at_least_float32(c_noise))
        t, rest = sigma / (1 + sigma), 1 / (1 + sigma)
        n = jnp.hypot(t, sigma_data * rest)
        out = at_least_float32(v(expand(n, x) * x, t))
        return expand((t - sigma_data**2 * rest) / sigma_data, x) * x - expand(n / sigma_data, x) * out

    return F


def trigflow_of_edm(F: Net, sigma_data: float = 0.5) -> Net:
    """F of `preconditioning.trigflow` of F of `preconditioning.edm`: -F(x, ln(sigma_data tan t) / 4), one denoiser.

    The input is x_t / sigma_data in both, and the noise level sigma_data tan t. Its derivative in t grows as
    1 / (sin t cos t), by whose inverse the tangent of a continuous-time consistency model is multiplied.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def trigflow_F(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        sigma = sigma_data * jnp.tan(at_least_float32(t))
        return -at_least_float32(F(at_least_float32(x), jnp.log(jnp.maximum(sigma, SMALLEST_NOISE)) / 4))

    return trigflow_F


def edm_of_trigflow(F: Net, sigma_data: float = 0.5) -> Net:
    """F of `preconditioning.edm` of F of `preconditioning.trigflow`: -F(x, arctan(sigma / sigma_data)), one denoiser.

    Raises:
        ValueError: `sigma_data` is not positive.
    """
    require_positive("sigma_data", sigma_data)

    def edm_F(x: Float[Array, "batch *shape"], c_noise: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        sigma = jnp.exp(4 * at_least_float32(c_noise))
        return -at_least_float32(F(at_least_float32(x), jnp.arctan(sigma / sigma_data)))

    return edm_F
