r"""Lagrangian self-distillation on latents of ImageNet-256 (Boffi et al. 2025): LSD with SiT's transformer.

    python main.py --config configs/imagenet256_lsd.py --workdir runs/imagenet256_lsd \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_lsd.py:B --workdir runs/imagenet256_lsd_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit_b

Data and sizes as in imagenet256_sit.py. The loss is that of digits_lsd.py, from random weights or, with
--config.teacher_run=DIR, from those of a flow: a run of imagenet256_sit.py, or a converted SiT or REPA of the size. The
layers of s start at random.

Paper: none has this run. Hardware: none to name. Ours: not run. Batch, rate and average are SiT's, share and clip those
of the paper's code, the number of steps and the floor ours; none of them was tried here: unverified.

Differs from the paper: the learned weight is a sum of functions of t and of s, and bounded, as in digits_lsd.py. There
is no guidance, which the method does not say: labels are not dropped, and the null class of a start is not asked.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import imagenet256_flow_maps
from losses import pairs
from losses.flow_map_matching import lagrangian
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT."""
    return imagenet256_flow_maps.matching_config(size)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return imagenet256_flow_maps.self_distilled(config, partial(lagrangian, pairs=pairs.ordered))
