"""Averages of the weights, each given by its decay: average <- decay(step) average + (1 - decay(step)) params.

`step` counts the steps already taken, so the first update has step 0. Bind the numbers with partial.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .posthoc import gamma_of


def constant(step: Int[Array, ""], *, decay: float) -> Float[Array, ""]:
    """The same decay at every step.

    Raises:
        ValueError: unless 0 <= decay < 1.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"the decay of an average must lie in [0, 1), got {decay}")
    return jnp.full_like(step, decay, jnp.float32)


def ramped(step: Int[Array, ""], *, decay: float) -> Float[Array, ""]:
    """min(decay, (n + 1) / (n + 10)) in update n = 1, 2, ... (Song et al. 2021, official code).

    Up to n = 9 / (1 - decay), nine million updates for the 0.999999 of rectified flow, it is a power-function average
    over about the last tenth of the time so far. With that decay from the start on, the initial weights would still
    count 27 % after 1.3 million updates.

    Raises:
        ValueError: unless 0 <= decay < 1.
    """
    return jnp.minimum(constant(step, decay=decay), (step + 2.0) / (step + 11.0))


def half_life(step: Int[Array, ""], *, images: float, batch_size: int, ramp_up: float = 0.05) -> Float[Array, ""]:
    """Half-life counted in training images, shorter at first (Karras et al. 2022, official training loop).

    The half-life is min(images, ramp_up * images seen so far), 0 at the first step, which therefore copies the
    parameters. EDM's CIFAR-10 value is 500,000 images with ramp_up 0.05.

    Raises:
        ValueError: unless images, batch_size and ramp_up are positive.
    """
    if not (images > 0 and batch_size > 0 and ramp_up > 0):
        raise ValueError(f"half_life needs positive numbers, got {images=}, {batch_size=}, {ramp_up=}")
    current = jnp.minimum(images, ramp_up * batch_size * step.astype(jnp.float32))
    return 0.5 ** (batch_size / jnp.maximum(current, 1e-8))


def power(step: Int[Array, ""], *, sigma_rel: float) -> Float[Array, ""]:
    """Power-function average: decay (1 - 1/(step + 1))^(gamma + 1) (Karras et al. 2024, eq. 127).

    sigma_rel is the standard deviation of the averaging profile as a share of the training time, e.g. 0.05 or 0.10;
    its averages can be recombined into any other length after training (see posthoc.py).

    Raises:
        ValueError: if sigma_rel is outside (0, 0.289).
    """
    return (step / (step + 1.0)) ** (gamma_of(sigma_rel) + 1)


def update(
    averages: dict[str, Any], decays: dict[str, Callable[[Array], Array]], params: Any, step: Int[Array, ""]
) -> dict[str, Any]:
    """One step of every average, in float32 or the parameters' wider type."""

    def blend(decay: Array) -> Callable[[Array, Array], Array]:
        # average + (1 - decay)(params - average) loses less to rounding than the convex combination.
        return lambda average, param: average + (1 - decay) * (param - average)

    return {name: jax.tree.map(blend(decay(step)), averages[name], params) for name, decay in decays.items()}
