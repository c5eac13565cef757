"""iLCT: consistency training for latents, whose outliers a bounded influence and a diffusion loss keep in check."""

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2
from .paths import at_least_float32, edm, interpolate
from .types import Array, Batch, Coupling, Distance, Key, Loss, Net, Pairs
from .weights import edm_weight


def latent_consistency_training(
    net: Net,
    x: Batch,
    key: Key,
    *,
    pairs: Pairs,
    distance: Distance,
    small_noise: Array | float,
    diffusion_weight: float = 5.0,
    sigma_data: float = 0.5,
    coupling: Coupling = independent,
) -> Loss:
    """weight d(f(x_t, t), f(x_s, s)) + 5 (1/t^2 + 1/sigma_data^2) mean |f(x_t, t) - x|^2 at small t (Dao et al. 2025).

    Args:
        net: Consistency function f(x_t, t), an estimate of the data at the end of the trajectory.
        x: Latents [B, ...], of standard deviation sigma_data.
        key: Draws t, s and z. Both calls see the same z and, through the closure `net`, the same dropout mask.
        pairs: Law of (t, s, weight) with s > 0: `pairs.ict` in the paper.
        distance: `cauchy` with c = `curricula.cauchy_scale` in the paper.
        small_noise: Noise level under which an example has a diffusion loss too: `curricula.small_noise`.
        diffusion_weight: Weight of that loss; with 0 this is `consistency`.
        sigma_data: Standard deviation of the data.
        coupling: Pairs data with noise: `optimal_transport` in the paper.

    Returns:
        One float32 loss per example [B], and metrics `t`, `distance` and `diffusion`, the two terms without their
        weights. The paper averages its diffusion loss over the examples that have one: theirs is multiplied by B over
        their number, so that the mean over the batch, or over a micro-batch, is the paper's loss, and finite without
        any.

    Raises:
        ValueError: if the network's output has not the shape of x.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    prediction = net(interpolate(edm, x, z, t), t)
    goal = jax.lax.stop_gradient(net(interpolate(edm, x, z, s), s))
    difference = distance(prediction, goal)

    selected = t < small_noise
    share = jnp.where(selected, len(x) / jnp.maximum(jnp.sum(selected), 1), 0.0)
    diffusion = share * edm_weight(t, sigma_data=sigma_data) * l2(prediction, x) / x[0].size
    return weight * difference + diffusion_weight * diffusion, {"t": t, "distance": difference, "diffusion": diffusion}
