r"""Eulerian self-distillation on latents of ImageNet-256 (Boffi et al. 2025): ESD with SiT's transformer.

    python main.py --config configs/imagenet256_esd.py --workdir runs/imagenet256_esd \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_esd.py:B --workdir runs/imagenet256_esd_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit_b

As imagenet256_lsd.py, with the loss of digits_esd.py: the network is differentiated in x and t, which costs more than
LSD's derivative in s alone. On the digits it is the one of the three that diverges without the clip.

Paper: none has this run. Hardware: none to name. Ours: not run. What is unverified and what differs is said there.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import imagenet256_flow_maps
from losses import pairs
from losses.flow_map_matching import eulerian
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT."""
    return imagenet256_flow_maps.matching_config(size)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return imagenet256_flow_maps.self_distilled(config, partial(eulerian, pairs=pairs.ordered))
