"""How a model sees latents, and how they are drawn; the arrays' functions are free of state and fit for `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key


class Scale(NamedTuple):
    """What a model sees of a latent z: (z - shift) * factor, by channel."""

    shift: tuple[float, ...]
    factor: tuple[float, ...]


ScaleOf: TypeAlias = Callable[[tuple[float, ...], tuple[float, ...]], Scale]
"""scale_of(mean[c], std[c]) -> the scale of latents with these means and deviations; `standardised` or `multiplied`"""


def standardised(mean: tuple[float, ...], std: tuple[float, ...], *, to: float = 0.5) -> Scale:
    """Every channel has mean 0 and standard deviation `to`: EDM2 and its descendants, sLCT.

    Raises:
        ValueError: a channel that never changes.
    """
    if min(std) <= 0:
        raise ValueError(f"a channel of these latents never changes, their deviations are {std}; it has no scale")
    return Scale(shift=tuple(mean), factor=tuple(to / deviation for deviation in std))


def multiplied(mean: tuple[float, ...], std: tuple[float, ...], *, by: float = 0.18215) -> Scale:
    """All channels are multiplied by one number and nothing is subtracted: Stable Diffusion."""
    return Scale(shift=(0.0,) * len(mean), factor=(by,) * len(std))


def to_model_scale(z: Float[Array, "*batch channels"], scale: Scale) -> Float32[Array, "*batch channels"]:
    """Latents as an encoder gives them, for a model."""
    return (z.astype(jnp.float32) - jnp.asarray(scale.shift)) * jnp.asarray(scale.factor)


def from_model_scale(z: Float[Array, "*batch channels"], scale: Scale) -> Float32[Array, "*batch channels"]:
    """Latents of a model, for a decoder."""
    return z.astype(jnp.float32) / jnp.asarray(scale.factor) + jnp.asarray(scale.shift)


def sample_posterior(
    key: Key[Array, ""], mean: Float[Array, "*batch channels"], logvar: Float[Array, "*batch channels"]
) -> Float[Array, "*batch channels"]:
    """Latents drawn from N(mean, exp(logvar))."""
    return mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape, mean.dtype)
