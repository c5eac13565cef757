"""Variational noise coupling: an encoder learns which noise each data point travels to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .paths import at_least_float32
from .types import Array, Batch, Key, PerExample


class Posterior(NamedTuple):
    """q(z | x) = N(mean, std^2), element by element, each [B, ...]."""

    mean: Batch
    std: Batch


def posterior(raw: Array) -> Posterior:
    """An encoder's output [B, ..., 2 C] as mean and softplus of the rest, both [B, ..., C] in float32.

    At raw = 0 the standard deviation is ln 2 = 0.693 and not 1.

    Raises:
        ValueError: if the last axis is odd.
    """
    if raw.shape[-1] % 2:
        raise ValueError(f"an encoder returns a mean and a width, an even number of channels, got {raw.shape}")
    mean, width = jnp.split(at_least_float32(raw), 2, axis=-1)
    return Posterior(mean, jax.nn.softplus(width) + 1e-8)


def coupling(key: Key, x: Batch, *, posterior: Posterior) -> tuple[Batch, Batch]:
    """(x, z) with z = mean + std epsilon, epsilon ~ N(0, I): a coupling (Silvestri et al. 2025).

    `posterior` is that of x. Through z the encoder learns what makes pairs easy to learn; `consistency` stops the
    gradient of its target, so it learns from x_t alone. The loss needs beta `divergence(posterior)` beside it, since
    samples start from N(0, I). With mean 0 and std 1 this is `independent`, draw for draw.

    Raises:
        ValueError: if the posterior is not one of x.
    """
    if not posterior.mean.shape == posterior.std.shape == x.shape:
        raise ValueError(f"the posterior of {x.shape} has shapes {posterior.mean.shape} and {posterior.std.shape}")
    return x, posterior.mean + posterior.std * jax.random.normal(key, x.shape, x.dtype)


def divergence(posterior: Posterior) -> PerExample:
    """KL(q || N(0, I)) = sum (std^2 + mean^2 - 1) / 2 - ln std, over all elements of an example."""
    terms = (posterior.std**2 + posterior.mean**2 - 1) / 2 - jnp.log(posterior.std)
    return terms.reshape(len(terms), -1).sum(axis=1)
