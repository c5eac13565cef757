"""Eulerian self-distillation on scikit-learn's digits (Boffi et al. 2025): ESD, a flow map without a teacher.

    python main.py --config configs/digits_esd.py --workdir runs/digits_esd

As digits_lsd.py, but a quarter of the batch trains that a jump's end does not move while its start follows the
velocity.

Its gradients now and then are a hundred times as long as usual: without the published clip it diverges here after some
250 steps (docs/results.md).
"""

from functools import partial

from ml_collections import ConfigDict

from configs import flow_maps
from losses import pairs
from losses.flow_map_matching import eulerian
from train import Experiment


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    return flow_maps.matching_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return flow_maps.digits_self_distilled(config, partial(eulerian, pairs=pairs.ordered))
