"""The loss of autoencoders with Gaussian latents, which latent diffusion is trained on."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ._shapes import Array
from .adversarial import balanced
from .distances import l1
from .paths import at_least_float32
from .types import Batch, Distance, Key, Loss, PerExample

Encode: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""encode(x[B, ...]) -> mean[B, ...], logvar[B, ...] of the latents"""

Decode: TypeAlias = Callable[[Array], Array]
"""decode(z[B, ...]) -> x[B, ...]"""

Adversary: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""adversary(x, y) -> loss of whoever made y of x, loss of the discriminator that tells them apart, [B] both"""


def autoencoding(
    encode: Encode,
    decode: Decode,
    x: Batch,
    key: Key,
    *,
    kl_weight: float = 1e-6,
    reconstruction: Distance = l1,
    perceptual: Distance | None = None,
    adversary: Adversary | None = None,
    adversarial_weight: float = 0.5,
) -> Loss:
    """|x - decode(z)| + kl_weight KL(q(z given x), N(0, I)) with z ~ q, both sums (Rombach et al. 2022, appendix G).

    With `l2` and kl_weight = 2 s^2 it is 2 s^2 times the negative evidence lower bound of a decoder with Gaussian
    noise of variance s^2, up to a constant. The published code also learns a scale of the distance, 1 at first, and
    measures the gradients that balance the adversary at the weights of the last layer; here it is at the images.

    Args:
        encode: Images -> mean and log variance of their latents.
        decode: Latents -> images.
        x: Images [B, ...].
        key: Draws z.
        kl_weight: Weight of the divergence, summed over the latent; 1e-6 in latent diffusion.
        reconstruction: Distance summed over the image; `l1` in latent diffusion.
        perceptual: A mean over the image, such as `lpips`; it is multiplied by the number of elements, since the
            published code adds it to each of them before it sums.
        adversary: With gradients stopped so that neither player's loss moves the other.
        adversarial_weight: Length of the adversary's gradient as a share of that of the distances.

    Returns:
        One float32 loss per example [B], and its parts as far as they are asked for: `reconstruction`, `perceptual`,
        `adversarial`, `discriminator` and `kl`.
    """
    x = at_least_float32(x)
    mean, logvar = (at_least_float32(moment) for moment in encode(x))
    z = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape, mean.dtype)
    y = at_least_float32(decode(z))

    def distance(y: Array) -> Loss:
        parts = {"reconstruction": reconstruction(y, x)}
        if perceptual is None:
            return parts["reconstruction"], parts
        parts["perceptual"] = perceptual(y, x)
        return parts["reconstruction"] + x[0].size * parts["perceptual"], parts

    def players(adversary: Adversary, y: Array) -> tuple[tuple[PerExample, PerExample], dict[str, PerExample]]:
        loss, parts = distance(y)
        parts["adversarial"], parts["discriminator"] = adversary(x, y)
        return (loss, parts["adversarial"]), parts

    if adversary is None:
        loss, parts = distance(y)
    else:
        (loss, adversarial), (balance,), parts = balanced(partial(players, adversary), y, limits=((0.0, 1e4),))
        loss += adversarial_weight * balance * adversarial + parts["discriminator"]
    parts["kl"] = kl_to_normal(mean, logvar)
    return loss + kl_weight * parts["kl"], parts


def kl_to_normal(mean: Batch, logvar: Batch) -> PerExample:
    """KL(N(mean, exp(logvar)), N(0, I)) = sum of (mean^2 + exp(logvar) - 1 - logvar) / 2, in nats.

    Raises:
        ValueError: for shapes that differ.
    """
    if mean.shape != logvar.shape:
        raise ValueError(f"mean and logvar must have the same shape, got {mean.shape} and {logvar.shape}")
    mean, logvar = at_least_float32(mean), at_least_float32(logvar)
    elements = jnp.square(mean) + (jnp.expm1(logvar) - logvar)  # 1 - 1 would cost the digits of a small logvar
    return jnp.sum(elements.reshape(len(mean), -1), axis=1) / 2
