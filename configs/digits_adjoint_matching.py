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

from ml_collections import ConfigDict

from configs import digits_rewards, rewards
from train import Experiment


def get_config() -> ConfigDict:
    """The values that the three methods share, and the paper's."""
    config = digits_rewards.get_config()
    config.update({"reward_scale": 20.0, "early": 5, "last": 5})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return digits_rewards.experiment(config, rewards.matching(config, digits_rewards.chain(config)))
