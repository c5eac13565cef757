"""DRaFT: a flow model fine-tuned by differentiating a reward through its own sampler."""

import jax

from .adjoint_matching import Reward
from .adjoints import draws, rollout
from .transitions import Transitions
from .types import Batch, Key, Loss, Net


def direct_backpropagation(
    net: Net, x: Batch, key: Key, *, reward: Reward, transitions: Transitions, last: int | None = None
) -> Loss:
    """-reward of a sample, differentiated through the last transitions of its chain (Clark et al. 2023).

    Nothing holds the samples to the data: the optimum is the point of the greatest reward, and training is stopped
    before it. Memory grows with `last`; where it is short let `net` be a `jax.checkpoint`.

    Args:
        net: Velocity v(x_t, t) that is trained.
        x: Data [B, ...], of which only shape and dtype are used; labels are in the closures.
        key: Draws the trajectories.
        reward: Differentiable [B, ...] -> [B].
        transitions: Chain from noise to data, with noise or without.
        last: K of DRaFT-K; all by default.

    Returns:
        One float32 loss per example [B], and metrics `reward`.

    Raises:
        ValueError: unless 1 <= last <= the number of transitions.
    """
    n = len(transitions.times)
    last = n if last is None else last
    if not 1 <= last <= n:
        raise ValueError(f"last must be 1 to {n} transitions, got {last}")
    start, noise = draws(key, transitions, x)
    head, tail = (
        transitions._replace(**{name: getattr(transitions, name)[part] for name in transitions._fields[1:]})
        for part in (slice(0, n - last), slice(n - last, n))
    )
    middle = jax.lax.stop_gradient(rollout(net, head, start, noise[: n - last])[-1])
    rewards = reward(rollout(net, tail, middle, noise[n - last :])[-1])
    return -rewards, {"reward": rewards}
