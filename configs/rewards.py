"""What the runs share that tune a flow towards a reward. Not a run.

The frozen parameters of such a run are {"flow": those it starts from, "reward": those of the reward}.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
from ml_collections import ConfigDict

from configs import glue
from losses import adjoint_matching, early_and_last, lean_adjoint
from losses.adjoint_matching import Adjoint, Reward
from losses.transitions import Transitions
from losses.types import Loss, Net
from train import Batch, Context, Params

Tuning: TypeAlias = Callable[[Net, Net, Reward, jax.Array, jax.Array], Loss]
"""(velocity, the flow's own, reward, x, key) -> loss"""

Objective: TypeAlias = Callable[[Params, Batch, jax.Array, Context], Loss]
"""As an Experiment has it."""


def objective(velocity: glue.NetOf, reward_of: Callable[[Any], Reward], tuning: Tuning) -> Objective:
    """That of an Experiment, of a velocity and a reward at their parameters, and of a way to tune."""

    def of(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        base = velocity(context.frozen["flow"], labels)
        reward = reward_of(context.frozen["reward"])
        return tuning(velocity(params, labels), base, reward, batch["image"], key)

    return of


def matching(config: ConfigDict, chain: Transitions, *, adjoint: Adjoint = lean_adjoint) -> Tuning:
    """Adjoint Matching at config.reward_scale of the config.last transitions and of config.early others."""

    def loss(net: Net, base: Net, reward: Reward, x: jax.Array, key: jax.Array) -> Loss:
        return adjoint_matching(
            net,
            x,
            key,
            base=base,
            reward=reward,
            transitions=chain,
            reward_scale=config.reward_scale,
            choice=partial(early_and_last, early=config.early, last=config.last),
            adjoint=adjoint,
        )

    return loss
