"""Progressive self-distillation on scikit-learn's digits (Boffi et al. 2025): PSD, a flow map without a teacher.

    python main.py --config configs/digits_psd.py --workdir runs/digits_psd

As digits_lsd.py, but a quarter of the batch trains that one jump is two: with the stop half way, or, by
--config.uniform=True, anywhere between.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import flow_maps
from losses import pairs, triples
from losses.flow_map_matching import semigroup
from train import Experiment


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    config = flow_maps.matching_config()
    config.uniform = False
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    law = triples.split if config.uniform else triples.midpoint
    return flow_maps.digits_self_distilled(config, partial(semigroup, triples=partial(law, pairs=pairs.ordered)))
