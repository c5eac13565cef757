r"""The continuous adjoint method on scikit-learn's digits, a baseline of Adjoint Matching (Domingo-Enrich et al. 2024).

    python main.py --config configs/digits_continuous_adjoint.py --workdir runs/digits_continuous_adjoint \
        --config.teacher_run=runs/digits_rectified_flow

As digits_adjoint_matching.py, but the adjoint is that of the controlled chain, through the tuned velocity and its cost.
Over all transitions its gradient is that of cost minus reward through the whole chain; over some of them, as here, an
estimate of it up to their weights.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import digits_adjoint_matching, digits_rewards
from losses import adjoint_matching, early_and_last, full_adjoint
from losses.adjoint_matching import Reward
from losses.types import Loss, Net
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_adjoint_matching.py."""
    return digits_adjoint_matching.get_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    chain = digits_rewards.chain(config)

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
            adjoint=full_adjoint,
        )

    return digits_rewards.experiment(config, loss)
