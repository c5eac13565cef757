r"""The continuous adjoint method on scikit-learn's digits, a baseline of Adjoint Matching (Domingo-Enrich et al. 2024).

    python main.py --config configs/digits_continuous_adjoint.py --workdir runs/digits_continuous_adjoint \
        --config.teacher_run=runs/digits_rectified_flow

As digits_adjoint_matching.py, but the adjoint is that of the controlled chain, through the tuned velocity and its cost.
Over all transitions its gradient is that of cost minus reward through the whole chain; over some of them, as here, an
estimate of it up to their weights.
"""

from ml_collections import ConfigDict

from configs import digits_adjoint_matching, digits_rewards, rewards
from losses import full_adjoint
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_adjoint_matching.py."""
    return digits_adjoint_matching.get_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    chain = digits_rewards.chain(config)
    return digits_rewards.experiment(config, rewards.matching(config, chain, adjoint=full_adjoint))
