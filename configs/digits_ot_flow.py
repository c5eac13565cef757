"""OT-CFM on scikit-learn's digits (Tong et al. 2023): a flow from noise that is paired with data.

    python main.py --config configs/digits_ot_flow.py --workdir runs/digits_ot_flow

As digits_rectified_flow.py, but the noise of a batch is paired with its data by optimal transport, so that fewer
trajectories cross and few steps cost less.

Differs from the paper's code: pairs are those of an exact assignment instead of draws from the plan, which leave out
some of the batch; they are made within classes, as a class-conditional network starts from N(0, I) in every class.
"""

from functools import partial

from ml_collections import ConfigDict
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from configs import digits_rectified_flow
from losses import on_host, optimal_transport
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_rectified_flow.py."""
    return digits_rectified_flow.get_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    assign = on_host(linear_sum_assignment)
    return digits_rectified_flow.experiment(
        config, lambda labels: partial(optimal_transport, assign=assign, labels=labels)
    )
