"""Guidance: extrapolate from a worse network through a better one.

Classifier-free guidance and autoguidance are the same formula; they differ in what serves as reference,
the same network without its label or a weaker network with it. So there is one function.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .net import Net, expand


def guide(
    net: Net,
    reference: Net,
    scale: float | Float[Array, ""] | Float[Array, " batch"],
    interval: tuple[float, float] = (0.0, math.inf),
) -> Net:
    """Guided network `reference + scale (net - reference)` where t lies in `interval`, and `net` elsewhere.

    `scale` 1 is no guidance, 0 is the reference; papers that write (1 + w) net - w reference have
    w = scale - 1. It holds for denoisers, velocities and noise predictions alike, since these differ by
    maps that are affine in the output.

    Args:
        net: the network to improve, with its label.
        reference: the network without label (classifier-free guidance, Ho and Salimans 2022) or a smaller
            or less trained one with label (autoguidance, Karras et al. 2024).
        scale: one number, or one per example.
        interval: lowest and highest t that are guided, both included, in the time of `net`
            (Kynkaanniemi et al. 2024).

    Raises:
        ValueError: `scale` is not finite, `interval` is not 0 <= low < high, or, in a call, `scale` is neither one
            number nor [B].
    """
    low, high = interval
    if not 0.0 <= low < high:
        raise ValueError(f"interval must satisfy 0 <= low < high, got {interval}")
    if isinstance(scale, int | float) and not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")

    def guided(x: Float[Array, "batch *shape"], t: Float[Array, " batch"]) -> Float[Array, "batch *shape"]:
        if jnp.shape(scale) not in ((), t.shape):
            raise ValueError(f"scale must be one number or one per example, {t.shape}; got shape {jnp.shape(scale)}")
        inside = (low <= t) & (t <= high)
        weight = expand(jnp.where(inside, scale, 1.0), x)
        better, worse = net(x, t), reference(x, t)
        # In this order, weight 1 returns `net` bit for bit.
        return better + (weight - 1.0) * (better - worse)

    return guided
