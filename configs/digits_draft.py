r"""DRaFT on scikit-learn's digits (Clark et al. 2023): the reward is differentiated through the sampler.

    python main.py --config configs/digits_draft.py --workdir runs/digits_draft \
        --config.teacher_run=runs/digits_rectified_flow

The same flow, reward, trajectories and budget as digits_adjoint_matching.py, and nothing that holds the samples to the
flow's: what is left of their variety is a matter of when training stops. `--config.last=1` is DRaFT-1.

Differs from the paper: a whole network instead of LoRA; trajectories with noise, those of the other two methods.
"""

import jax
from ml_collections import ConfigDict

from configs import digits_rewards
from losses import direct_backpropagation
from losses.adjoint_matching import Reward
from losses.types import Loss, Net
from train import Experiment


def get_config() -> ConfigDict:
    """The values that the three methods share; all steps are differentiated."""
    config = digits_rewards.get_config()
    config.last = config.chain_steps
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    chain = digits_rewards.chain(config)

    def loss(net: Net, base: Net, reward: Reward, x: jax.Array, key: jax.Array) -> Loss:
        return direct_backpropagation(net, x, key, reward=reward, transitions=chain, last=config.last)

    return digits_rewards.experiment(config, loss)
