"""Continuous-time consistency models on TrigFlow: sCT, and with a teacher's velocity sCD."""

from functools import partial

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2
from .paths import at_least_float32, expand, interpolate, scaled, trig
from .paths import velocity as conditional_velocity
from .tangents import normalised
from .times import trig_lognormal
from .types import Array, Batch, Coupling, Key, Loss, Net, Tangent, Times, Weight
from .weights import adaptive, zero


def continuous_consistency(
    F: Net,
    x: Batch,
    key: Key,
    *,
    times: Times = trig_lognormal,
    velocity: Net | None = None,
    warmup: Array | float = 1.0,
    tangent: Tangent = partial(normalised, c=0.1),
    log_weight: Weight = zero,
    sigma_data: float = 0.5,
    coupling: Coupling = independent,
) -> Loss:
    """exp(w)/d |F - stop_gradient(F + g)|^2 - w, g = cos(t) df/dt made safe (Lu & Song 2024, alg. 1).

    f(x_t, t) = cos(t) x_t - sigma_data sin(t) F(x_t / sigma_data, t) is the consistency function. The factor
    cos(t) sin(t) of its derivative multiplies the tangents that go into the network and not what comes out: at
    t near pi/2 the derivative of F is large, and times its factor it is not.

    Args:
        F: Raw network, called as F(x_t / sigma_data, t), with a forward-mode derivative. One call serves as student
            and as its own frozen copy, so both share a dropout mask.
        x: Data [B, ...] of standard deviation sigma_data.
        key: Draws t and z.
        times: Law of the angle t in (0, pi/2).
        velocity: The teacher's dx_t/dt on `scaled(trig, sigma_data)` in distillation, guided or not; by default the
            conditional velocity of the pair (x, z), which is training.
        warmup: Share r of the network's own derivative, `curricula.tangent_warmup`. At r = 0 the loss is that of
            a diffusion model.
        tangent: How g is bounded: `tangents.normalised` or `tangents.clipped`.
        log_weight: w(t), learned jointly in the paper: its optimum makes every noise level's loss 1.
        sigma_data: Standard deviation of the data.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t`, `tangent` (norm of g before it is bounded) and `distance`
        (the mean square without weights).
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    path = scaled(trig, sigma_data)
    t = times(key_t, len(x))
    x_t = interpolate(path, x, z, t)
    v = velocity(x_t, t) if velocity else conditional_velocity(path, x, z, t)

    cos, sin = expand(jnp.cos(t), x), expand(jnp.sin(t), x)
    directions = (cos * sin * v / sigma_data, jnp.cos(t) * jnp.sin(t))
    F_t, F_rate = jax.jvp(F, (x_t / sigma_data, t), directions)
    F_t, F_rate = at_least_float32(F_t), at_least_float32(F_rate)
    g = -(cos**2) * (sigma_data * F_t - v) - warmup * (cos * sin * x_t + sigma_data * F_rate)

    goal = jax.lax.stop_gradient(F_t + tangent(g))
    elements = x[0].size
    distance = l2(F_t, goal)
    norm = jnp.sqrt(l2(jax.lax.stop_gradient(g), jnp.zeros_like(g)))
    loss = adaptive(distance, log_weight(t), elements=elements)
    return loss, {"t": t, "tangent": norm, "distance": distance / elements}
