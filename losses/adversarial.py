"""Losses of a generator and its discriminator, on images or on noised states, and how much they weigh.

A discriminator is any network that returns a sequence of heads, each [B, ...]; a head counts by the mean of its
elements and all heads count the same. The players share one loss: what trains the discriminator is given
stop_gradient of the images, what trains the generator the discriminator at constant parameters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .paths import Path, at_least_float32, expand
from .types import Array, Batch, PerExample

Heads = Sequence[Array]


def hinge_discriminator(real: Heads, fake: Heads) -> PerExample:
    """relu(1 - D(real)) + relu(1 + D(fake)), 2 for a discriminator that cannot tell and says 0 (Lim and Ye 2017).

    Raises:
        ValueError: if the two have not the same number of heads, or heads are not a sequence.
    """
    if len(real) != len(fake):
        raise ValueError(f"real and fake need the same number of heads, got {len(real)} and {len(fake)}")
    return _mean(real, lambda d: jax.nn.relu(1 - d)) + _mean(fake, lambda d: jax.nn.relu(1 + d))


def hinge_generator(fake: Heads) -> PerExample:
    """-D(fake), the generator's loss of CTM.

    Raises:
        ValueError: if heads are not a sequence.
    """
    return _mean(fake, jnp.negative)


def saturating_hinge_generator(fake: Heads) -> PerExample:
    """relu(1 - D(fake)), the generator's loss of PCM: no gradient once a head is fooled by a margin of 1.

    Raises:
        ValueError: if heads are not a sequence.
    """
    return _mean(fake, lambda d: jax.nn.relu(1 - d))


def _mean(heads: Heads, of: Callable[[Array], Array]) -> PerExample:
    if not isinstance(heads, tuple | list) or not heads:
        raise ValueError(f"a discriminator returns a tuple or list of one or more heads, got {type(heads).__name__}")
    means = (jnp.mean(of(at_least_float32(d)).reshape(len(d), -1), axis=1) for d in heads)
    return sum(means, start=jnp.zeros(())) / len(heads)


def renoise(path: Path, x_s: Batch, z: Batch, s: PerExample, t: PerExample) -> Batch:
    """The state at t >= s that x_s becomes with fresh noise z: what PCM's discriminator sees (Wang et al. 2024).

    (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (sigma_s alpha_t / alpha_s)^2) z, in law the state at t on any path. On a
    straight line PCM's code has (t - s) / (1 - s) in place of the root, which is too little noise: 0.559 and not 0.75
    in all from 0.5 to 0.75. 0/0 where alpha_s = 0.
    """
    alpha_s, sigma_s, alpha_t, sigma_t = (
        expand(c, x_s) for c in (path.alpha(s), path.sigma(s), path.alpha(t), path.sigma(t))
    )
    ratio = alpha_t / alpha_s
    # Exactly 0 where t = s: a rounding error of the variance would be 0.02 of noise at sigma = 80 in float32.
    variance = jnp.where(
        expand(t, x_s) > expand(s, x_s), (sigma_t - ratio * sigma_s) * (sigma_t + ratio * sigma_s), 0.0
    )
    return ratio * x_s + jnp.sqrt(jnp.maximum(variance, 0.0)) * z


def balanced(
    terms: Callable[[Any], tuple[tuple[PerExample, ...], Any]], at: Any, *, limits: Sequence[tuple[float, float]]
) -> tuple[tuple[PerExample, ...], list[Array], Any]:
    """Terms of a loss, and the weights that make the gradients of all at one layer as long as that of the first.

    weight_k = |grad of mean(term_0)| / (|grad of mean(term_k)| + 1e-4), within limits and a constant: CTM's, which is
    VQGAN's (Esser et al. 2021, eq. 7; Kim et al. 2023). Differentiate what it returns as ever: the terms depend on
    `at`. It costs, for each term, a backward pass that ends at that layer.

    Args:
        terms: at -> (the terms, each [B]; anything else, such as metrics).
        at: Parameters of the layer, any pytree: the last convolution of the last block in CTM.
        limits: (low, high) of each weight: (0, 1e4) for CTM's denoising term, (0.01, 10) for its discriminator.

    Returns:
        The terms, the weight of each but the first, and the rest.

    Raises:
        ValueError: unless there is one pair of limits for each term but the first.
    """
    values, pull, rest = jax.vjp(terms, at, has_aux=True)
    if len(limits) != len(values) - 1:
        raise ValueError(f"{len(values)} terms need {len(values) - 1} pairs of limits, got {len(limits)}")

    def length(k: int) -> Array:
        (gradient,) = pull(tuple(jnp.full_like(v, (i == k) / len(v)) for i, v in enumerate(values)))
        squares = (jnp.sum(jnp.square(at_least_float32(leaf))) for leaf in jax.tree.leaves(gradient))
        return jax.lax.stop_gradient(jnp.sqrt(sum(squares, start=jnp.zeros(()))))

    first = length(0)
    weights = [jnp.clip(first / (length(k) + 1e-4), *pair) for k, pair in enumerate(limits, start=1)]
    return values, weights, rest
