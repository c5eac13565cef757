"""Trajectories of a chain of transitions, and their adjoints: what a reward at the end asks of each state before."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ._shapes import Array, Float
from .distances import l2
from .paths import at_least_float32
from .transitions import Transitions
from .types import Batch, Key, Net

Trajectory: TypeAlias = Float[Array, "states batch *shape"]
"""x_0, ..., x_K of a batch, or an adjoint at each of them"""

Noise: TypeAlias = Float[Array, "transitions batch *shape"]
"""z_0, ..., z_{K - 1}"""


def draws(key: Key, transitions: Transitions, like: Batch) -> tuple[Batch, Noise]:
    """(x_0[B, ...], z[K, B, ...]) in float32; z of the last transition is 0: its noise would stay in the data."""
    key_start, key_noise = jax.random.split(key)
    dtype = at_least_float32(like).dtype
    start = transitions.start * jax.random.normal(key_start, like.shape, dtype)
    noise = jax.random.normal(key_noise, (len(transitions.times), *like.shape), dtype)
    return start, noise.at[-1].set(0)


def rollout(net: Net, transitions: Transitions, start: Batch, noise: Noise) -> Trajectory:
    """x_0, ..., x_K from x_0 = start [B, ...] and z [K, B, ...], by the velocity `net`; differentiable."""

    def step(x: Batch, step: tuple[Array, Batch]) -> tuple[Batch, Batch]:
        (t, state, velocity, scale), z = step
        x = state * x + velocity * net(x, _full(t, x)) + scale * z
        return x, x

    _, states = jax.lax.scan(step, start, (_numbers(transitions, start), noise))
    return jnp.concatenate([start[None], states])


def lean_adjoint(net: Net, base: Net, transitions: Transitions, states: Trajectory, last: Batch) -> Trajectory:
    """a_k = (state_k + velocity_k dv/dx)^T a_{k+1} with the base's v at x_k, a_K = last: [K + 1, B, ...].

    The fine-tuned `net` has no part in it but for the states: what its control would add has mean 0 at the optimum
    (Domingo-Enrich et al. 2024).
    """

    def back(a: Batch, step: tuple[Batch, Array]) -> tuple[Batch, Batch]:
        x, (t, state, velocity, _) = step
        _, pull = jax.vjp(lambda x: at_least_float32(base(x, _full(t, x))), x)
        a = state * a + velocity * pull(a)[0]
        return a, a

    _, earlier = jax.lax.scan(back, last, (states[:-1], _numbers(transitions, last)), reverse=True)
    return jnp.concatenate([earlier, last[None]])


def full_adjoint(net: Net, base: Net, transitions: Transitions, states: Trajectory, last: Batch) -> Trajectory:
    """The same of the controlled chain: derivative of the end and of the control's cost |control|^2 / 2 in x_k.

    With it the gradient of the loss over all transitions is twice that of sum |control|^2 / 2 - reward through the
    whole chain: the continuous adjoint method (Domingo-Enrich et al. 2024).
    """

    def back(a: Batch, step: tuple[Batch, Array]) -> tuple[Batch, Batch]:
        x, (t, state, velocity, scale) = step

        def next_and_cost(x: Batch) -> tuple[Batch, Array]:
            v, v_base = (at_least_float32(f(x, _full(t, x))) for f in (net, base))
            return state * x + velocity * v, l2(v, v_base) * _squared_ratio(velocity, scale) / 2

        (_, cost), pull = jax.vjp(next_and_cost, x)
        (a,) = pull((a, jnp.ones_like(cost)))
        return a, a

    _, earlier = jax.lax.scan(back, last, (states[:-1], _numbers(transitions, last)), reverse=True)
    return jnp.concatenate([earlier, last[None]])


def _squared_ratio(velocity: Array, scale: Array) -> Array:
    """(velocity / noise)^2, 0 for a transition without noise, which is not matched either."""
    return jnp.where(scale > 0, (velocity / jnp.where(scale > 0, scale, 1)) ** 2, 0)


def _numbers(transitions: Transitions, like: Array) -> Array:
    return jnp.asarray(np.stack(transitions[1:], axis=1), like.dtype)


def _full(t: Array, x: Batch) -> Array:
    return jnp.broadcast_to(t, x.shape[:1])
