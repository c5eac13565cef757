"""Denoising score matching: the diffusion loss that teachers and initialisations are trained with."""

from functools import partial

import jax

from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, edm, interpolate
from .times import lognormal
from .types import Batch, Coupling, Distance, Key, Loss, Net, Times, Weight
from .weights import edm_weight


def denoising(
    net: Net,
    x: Batch,
    key: Key,
    *,
    times: Times = partial(lognormal, mean=-1.2, std=1.2),
    weight: Weight = partial(edm_weight, sigma_data=0.5),
    path: Path = edm,
    coupling: Coupling = independent,
    distance: Distance = l2,
) -> Loss:
    """weight(t) |net(x_t, t) - x|^2, summed over elements (Karras et al. 2022, eq. 2 and table 1).

    Args:
        net: Denoiser D(x_t, t), an estimate of the data.
        x: Data [B, ...], of standard deviation sigma_data for the default weight.
        key: Draws t and z.
        times: Law of t; the default is EDM's.
        weight: Weight of each noise level.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.
        distance: Squared l2 in the paper.

    Returns:
        One float32 loss per example [B], and metrics `t`.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t = times(key_t, len(x))
    x_t = interpolate(path, x, z, t)
    return weight(t) * distance(net(x_t, t), x), {"t": t}
