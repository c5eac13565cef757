"""Adjoint Matching: a flow model fine-tuned towards a reward, by regression instead of backpropagation in time."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ._shapes import Array, Int
from .adjoints import Trajectory, draws, lean_adjoint, rollout
from .distances import l2
from .paths import at_least_float32
from .transitions import Transitions
from .types import Batch, Key, Loss, Net, PerExample

Reward: TypeAlias = Callable[[Array], Array]
"""reward(x[B, ...]) -> [B], differentiable"""

Adjoint: TypeAlias = Callable[[Net, Net, Transitions, Array, Array], Array]
"""adjoint(net, base, transitions, states[K + 1, B, ...], last[B, ...]) -> [K + 1, B, ...]"""

Choice: TypeAlias = Callable[[Key, int], Array]
"""choice(key, n) -> indices of transitions in [0, n)"""


def adjoint_matching(
    net: Net,
    x: Batch,
    key: Key,
    *,
    base: Net,
    reward: Reward,
    transitions: Transitions,
    reward_scale: float = 1.0,
    choice: Choice = lambda key, n: jnp.arange(n),
    adjoint: Adjoint = lean_adjoint,
    clip: float = jnp.inf,
) -> Loss:
    """sum_k |control_k + noise_k a_{k+1}|^2 along trajectories of `net`, undifferentiated (Domingo-Enrich et al. 2024).

    control_k = (velocity_k / noise_k) (net - base)(x_k, t_k), and a_K = -reward_scale d reward/dx. With memoryless
    transitions of small steps the minimum is the velocity of the data of density p_base(x) exp(reward_scale reward(x)),
    for any sampler. For steps of any length it is the exact condition of the discrete chain; the authors' code has a_k
    for a_{k+1}.

    A term is in units of the Kullback-Leibler divergence, as in the authors' code. The paper's term is this one over
    the length of the step h, so that its clip 1.6 reward_scale^2 is 1.6 reward_scale^2 h here.

    Args:
        net: Velocity v(x_t, t) that is trained; at first the base.
        x: Data [B, ...], of which only shape and dtype are used; labels are in the closures.
        key: Draws the trajectories and the choice.
        base: Velocity of the flow to start from, at constant parameters.
        reward: Differentiable [B, ...] -> [B].
        transitions: Chain on the path of both velocities: `euler_maruyama` with `memoryless`, or `ancestral`.
        reward_scale: lambda of the paper.
        choice: Transitions that are matched; all by default, `early_and_last` in the paper. A last transition
            without noise is none.
        adjoint: `lean_adjoint`, or `full_adjoint`, which is the paper's baseline.
        clip: Terms above it have no gradient.

    Returns:
        One float32 loss per example [B], and metrics `reward` of the trajectories' ends.

    Raises:
        ValueError: if another transition than the last has no noise, or the reward is not one number per example.
    """
    key_draws, key_choice = jax.random.split(key)
    matched = int(np.count_nonzero(transitions.noise))
    if matched < len(transitions.noise) - 1 or not transitions.noise[:matched].all():
        raise ValueError(f"all transitions but the last need noise to be matched, got {transitions.noise}")
    states = rollout(_stopped(net), transitions, *draws(key_draws, transitions, x))
    rewards, last = slope(reward, states[-1])
    adjoints = jax.lax.stop_gradient(adjoint(net, base, transitions, states, -reward_scale * last))
    chosen = choice(key_choice, matched)
    return match(net, base, transitions, states, adjoints, chosen, clip=clip), {"reward": rewards}


def match(
    net: Net,
    base: Net,
    transitions: Transitions,
    states: Trajectory,
    adjoints: Trajectory,
    chosen: Int[Array, "chosen"],
    *,
    clip: float = jnp.inf,
) -> PerExample:
    """The loss on given trajectories and adjoints, of `net` or of another: [B]. Arguments as in `adjoint_matching`."""
    times, velocity, noise = (
        jnp.asarray(c, states.dtype) for c in (transitions.times, transitions.velocity, transitions.noise)
    )

    def term(k: Array) -> PerExample:
        t = jnp.broadcast_to(times[k], states.shape[1:2])
        v, v_base = (at_least_float32(f(states[k], t)) for f in (net, base))
        control = velocity[k] / noise[k] * (v - jax.lax.stop_gradient(v_base))
        return jnp.minimum(l2(control, -noise[k] * adjoints[k + 1]), clip)

    return jax.lax.map(term, chosen).sum(axis=0)


def early_and_last(key: Key, n: int, *, early: int, last: int) -> Int[Array, "chosen"]:
    """The last transitions, and as many of the earlier ones at random, each once; the paper has 10 and 10 of 40.

    Raises:
        ValueError: unless both are at least 0 and there are so many.
    """
    if min(early, last) < 0 or not 1 <= early + last <= n:
        raise ValueError(f"early and last must be 1 to {n} transitions together, got {early} and {last}")
    return jnp.append(jax.random.permutation(key, n - last)[:early], jnp.arange(n - last, n))


def slope(reward: Reward, x: Batch) -> tuple[PerExample, Batch]:
    """(reward[B], its derivative[B, ...]).

    Raises:
        ValueError: if the reward is not one number per example.
    """
    rewards, pull = jax.vjp(reward, x)
    if rewards.shape != x.shape[:1]:
        raise ValueError(f"a reward is one number per example, {x.shape[:1]}, got {rewards.shape}")
    return rewards, pull(jnp.ones_like(rewards))[0]


def _stopped(net: Net) -> Net:
    return lambda x, t: jax.lax.stop_gradient(net(x, t))
