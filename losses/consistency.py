"""Discrete consistency models: CD, CT, iCT, ECT and SCT are this recipe, each with its own pairs, step and distance."""

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import pseudo_huber
from .paths import Path, at_least_float32, edm, expand, interpolate
from .steps import same_noise
from .types import Batch, Coupling, Distance, Key, Loss, Net, Pairs, Step


def consistency(
    net: Net,
    x: Batch,
    key: Key,
    *,
    pairs: Pairs,
    step: Step = same_noise,
    target: Net | None = None,
    distance: Distance = pseudo_huber,
    path: Path = edm,
    coupling: Coupling = independent,
) -> Loss:
    """weight d(net(x_t, t), stop_gradient(target(x_s, s))) with x_s a step from x_t (Song et al. 2023, alg. 2 and 3).

    Args:
        net: Consistency function f(x_t, t), an estimate of the data at the end of the trajectory.
        x: Data [B, ...].
        key: Draws t, s and z. Both calls see the same z; they share a dropout mask because the dropout key is in
            the closure `net`.
        pairs: Law of (t, s, weight): `pairs.ct`, `pairs.ict` or `pairs.ect` with their numbers and stage bound.
        step: From x_t to x_s: the same noise (training), a solver on a teacher's ODE (distillation), or SCT's average
            over references; see steps.py.
        target: f at the target parameters; by default the network itself, as in iCT and ECT. CT passes an average.
        distance: l2 or LPIPS in CT, pseudo-Huber over the whole example in iCT and ECT.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t` and `distance` (the loss without its weight).

    Raises:
        ValueError: if a network's output has not the shape of x.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, s, weight = pairs(key_t, len(x))
    prediction = net(interpolate(path, x, z, t), t)
    x_s = jax.lax.stop_gradient(step(path, x, z, t, s))
    # s = 0 is data, where the boundary condition gives f(x, 0) = x. The network is never asked there: its time input
    # is ln s in most backbones, and a NaN, though thrown away, would stop a run under jax_debug_nans.
    goal = (target or net)(x_s, jnp.where(s > 0, s, t))
    if goal.shape != x.shape:  # `where` would broadcast it
        raise ValueError(f"a consistency function returns the shape of its input {x.shape}, got {goal.shape}")
    goal = jax.lax.stop_gradient(jnp.where(expand(s, x) > 0, goal, x_s))
    difference = distance(prediction, goal)
    return weight * difference, {"t": t, "distance": difference}
