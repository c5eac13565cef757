"""Rectified flow, alias flow matching: regression of the velocity of a path."""

import jax

from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, interpolate, linear, velocity
from .times import uniform
from .types import Batch, Coupling, Distance, Key, Loss, Net, Times, Weight
from .weights import one


def rectified_flow(
    net: Net,
    x: Batch,
    key: Key,
    *,
    times: Times = uniform,
    weight: Weight = one,
    path: Path = linear,
    coupling: Coupling = independent,
    distance: Distance = l2,
) -> Loss:
    """weight(t) |net(x_t, t) - (alpha' x + sigma' z)|^2, summed over elements (Liu 2022, eq. 1; Lipman 2022, eq. 9).

    Args:
        net: Velocity v(x_t, t) = dx_t/dt. Time grows with noise, so it points from data to noise. A network that
            predicts data, noise or the score is one by `conversions.denoiser_to_velocity`, `noise_to_velocity` or
            `score_to_velocity`; with W = sigma alpha' - alpha sigma' the loss is then (W / sigma)^2, (W / alpha)^2 or
            (W sigma / alpha)^2 times that of its own prediction.
        x: Data [B, ...].
        key: Draws t and z.
        times: Law of t. A weight w(t) on uniform times is the law with density w, where that is one.
        weight: Weight of each noise level; 1 in the papers, and `weights.likelihood_weight` in an ablation of SiT.
        path: x_t = alpha x + sigma z; the default is the straight line.
        coupling: Pairs data with noise; independent in the papers' first round, generated pairs in reflow.
        distance: Squared l2 in the papers.

    Returns:
        One float32 loss per example [B], and metrics `t`.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t = times(key_t, len(x))
    x_t = interpolate(path, x, z, t)
    return weight(t) * distance(net(x_t, t), velocity(path, x, z, t)), {"t": t}
