r"""Multistep consistency on ImageNet-64 (Heek et al. 2024) with ADM's U-Net, from a published diffusion model.

    python main.py --config configs/imagenet64_multistep_adm.py --workdir runs/imagenet64_multistep_adm \
        --config.data=FOLDER --config.teacher_run=runs/edm --config.segments=2

The teacher is a converted EDM, or any other diffusion model that has its network; nobody has published weights of the
paper's UViT. With --config.distill=False the steps go along the data and not along the teacher's predictions.

Differs: the network, and that the path ends at EDM's largest noise, 80. The paper has no numbers of it. Ours: not run.
"""

import math

from ml_collections import ConfigDict

from configs import imagenet, imagenet64_cosine, imagenet64_multistep_training
from models.adm import adm
from train import Experiment

SIGMA_MAX = 80.0


def get_config() -> ConfigDict:
    """The values of imagenet64_edm.py's network, trained as the paper trains its own."""
    config, paper = imagenet.common(), imagenet64_cosine.common()
    config.update({name: paper[name] for name in ("batch_size", "learning_rate", "average_decay")})
    config.update({**imagenet64_multistep_training.values(), "distill": True, "dropout": 0.1})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    end = 2 / math.pi * math.atan(SIGMA_MAX)
    return imagenet64_multistep_training.experiment(config, imagenet.network(adm, config), end=end)
