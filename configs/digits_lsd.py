"""Lagrangian self-distillation on scikit-learn's digits (Boffi et al. 2025): LSD, a flow map without a teacher.

    python main.py --config configs/digits_lsd.py --workdir runs/digits_lsd

Three quarters of a batch train the velocity u(x, t, t), a quarter the jump: its derivative where it ends is the
velocity there. s <= t are uniform.

Differs from the paper: the learned weight is a sum of functions of t and of s, and one of its own on the diagonal;
it is bounded, without which training diverged (docs/results.md).
"""

from functools import partial

from ml_collections import ConfigDict

from configs import flow_maps
from losses import pairs
from losses.flow_map_matching import lagrangian
from train import Experiment


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    return flow_maps.matching_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return flow_maps.digits_self_distilled(config, partial(lagrangian, pairs=pairs.ordered))
