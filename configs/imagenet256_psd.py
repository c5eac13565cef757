r"""Progressive self-distillation on latents of ImageNet-256 (Boffi et al. 2025): PSD with SiT's transformer.

    python main.py --config configs/imagenet256_psd.py --workdir runs/imagenet256_psd \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_psd.py:B --workdir runs/imagenet256_psd_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit_b

As imagenet256_lsd.py, with the loss of digits_psd.py, which differentiates nothing in x or time: one jump is two, with
the stop half way, or, by --config.uniform=True, anywhere between.

Paper: none has this run. Hardware: none to name. Ours: not run. What is unverified and what differs is said there.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import imagenet256_flow_maps
from losses import pairs, triples
from losses.flow_map_matching import semigroup
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT."""
    config = imagenet256_flow_maps.matching_config(size)
    config.uniform = False
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    law = triples.split if config.uniform else triples.midpoint
    residual = partial(semigroup, triples=partial(law, pairs=pairs.ordered))
    return imagenet256_flow_maps.self_distilled(config, residual)
