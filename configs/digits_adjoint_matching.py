r"""Adjoint Matching on scikit-learn's digits (Domingo-Enrich et al. 2024): a flow is tuned towards a reward.

    python main.py --config configs/digits_rectified_flow.py --workdir runs/digits_rectified_flow
    python main.py --config configs/digits_adjoint_matching.py --workdir runs/digits_adjoint_matching \
        --config.teacher_run=runs/digits_rectified_flow

A flow of all digits learns to draw a 3 whatever it is asked for; digits_rewards.py says how it is rewarded and judged.
Regression on the lean adjoint along trajectories of memoryless noise, so that the tuned velocity is that of the density
p(x) exp(reward_scale reward(x)) and Euler steps without noise sample it.

Differs from the paper: trajectories take DDPM's steps, which 20 are enough for; 5 random and 5 late steps of them
instead of 10 and 10 of 40; terms are in units of the Kullback-Leibler divergence and not clipped; Adam with b2 = 0.99.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import digits_rewards
from losses import adjoint_matching, early_and_last
from losses.adjoint_matching import Reward
from losses.types import Loss, Net
from train import Experiment


def get_config() -> ConfigDict:
    """The values that the three methods share, and the paper's."""
    config = digits_rewards.get_config()
    config.update({"reward_scale": 20.0, "early": 5, "last": 5})
    return config


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
        )

    return digits_rewards.experiment(config, loss)
