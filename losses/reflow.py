"""2-rectified flow++: reflow of given pairs with a robust distance of velocities and a perceptual one of data."""

import jax

from .distances import scaled_pseudo_huber
from .paths import at_least_float32, expand, interpolate, linear
from .times import u_shaped
from .types import Batch, Coupling, Distance, Key, Loss, Net, Times, Weight
from .weights import inverse_time


def reflow(
    net: Net,
    x: Batch,
    key: Key,
    *,
    coupling: Coupling,
    perceptual: Distance,
    perceptual_weight: Weight = inverse_time,
    times: Times = u_shaped,
) -> Loss:
    """(1 - t) huber(v, z - x) + w(t) perceptual(x_t - t v, x) with v = net(x_t, t) (Lee et al. 2024, code).

    w is 1 in the paper's configuration E and 1/t in F. The predicted data are off by t (z - x - v), and LPIPS goes with
    the square of that, so 1/t of it is small where t is. The reflow of Liu et al. 2022 is `rectified_flow` with the
    same coupling.

    Args:
        net: Velocity v(x_t, t) on the straight path.
        x: Data [B, ...], made by a flow from the noise they are paired with, or taken to it by the flow.
        key: Draws t.
        coupling: Pairs data with their noise. Pairs that come with the batch are `lambda key, x: (x, noise)`.
        perceptual: LPIPS in the paper.
        perceptual_weight: Factor of the second term.
        times: U-shaped in the paper.

    Returns:
        One float32 loss per example [B], and metrics `t`, `velocity` (the first term without its factor) and
        `perceptual` (the second without its own).
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t = times(key_t, len(x))
    x_t = interpolate(linear, x, z, t)
    v = at_least_float32(net(x_t, t))
    velocity = scaled_pseudo_huber(v, z - x)
    denoised = perceptual(x_t - expand(t, x) * v, x)
    loss = (1 - t) * velocity + perceptual_weight(t) * denoised
    return loss, {"t": t, "velocity": velocity, "perceptual": denoised}
