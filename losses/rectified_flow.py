"""Rectified flow, alias flow matching: regression of the velocity of a path."""

import jax

from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, interpolate, linear, velocity
from .times import uniform
from .types import Batch, Coupling, Distance, Key, Loss, Net, Times


def rectified_flow(
    net: Net,
    x: Batch,
    key: Key,
    *,
    times: Times = uniform,
    path: Path = linear,
    coupling: Coupling = independent,
    distance: Distance = l2,
) -> Loss:
    """|net(x_t, t) - (alpha' x + sigma' z)|^2, summed over elements (Liu et al. 2022, eq. 1; Lipman 2022, eq. 9).

    Args:
        net: Velocity v(x_t, t) = dx_t/dt. Time grows with noise, so it points from data to noise.
        x: Data [B, ...].
        key: Draws t and z.
        times: Law of t. A weight w(t) on uniform times is the law with density w.
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
    return distance(net(x_t, t), velocity(path, x, z, t)), {"t": t}
