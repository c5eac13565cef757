r"""Adjoint Matching on latents of ImageNet-256 (Domingo-Enrich et al. 2024): a SiT is tuned towards images you like.

    python main.py --config configs/imagenet256_adjoint_matching.py --workdir runs/imagenet256_adjoint_matching \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=DIR --config.liked=FOLDER
    python main.py --config configs/imagenet256_adjoint_matching.py:B --workdir runs/imagenet256_adjoint_matching_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=DIR --config.liked=FOLDER

DIR is a run of imagenet256_sit.py, a converted SiT or REPA of the size, or a run that was tuned before. Data as in
imagenet256_sit.py; imagenet256_rewards.py says what is rewarded. At the minimum the flow's density p(x), without
guidance, is tilted to p(x) exp(reward_scale reward(x)). What is tuned stays a flow, which others can be distilled from.

Paper: none has this run; there a flow of text to images is tuned to what people prefer. Its chain of 40 steps, 10 at
random and the last 10, Adam, batch and number of updates are taken over, unverified; reward_scale, for a cosine, the
average and dropped labels are ours. Ours: not run.

Differs: terms are in units of the Kullback-Leibler divergence and not clipped, since the paper's threshold is for its
own reward; no guidance while training.
"""

from ml_collections import ConfigDict

from configs import imagenet256_rewards, imagenet256_sit, rewards
from configs.trained_models import Flow
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values that the three methods share, and those of matching.

    Raises:
        ValueError: naming the sizes that there are.
    """
    config = imagenet256_rewards.get_config(size)
    config.update({"reward_scale": 100.0, "early": 10, "last": 10})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return imagenet256_rewards.experiment(config, rewards.matching(config, imagenet256_rewards.chain(config)))


def flow(config: ConfigDict) -> Flow:
    """What this run is to those that go on from it."""
    return imagenet256_sit.flow(config)
