r"""The continuous adjoint method on latents of ImageNet-256, a baseline in Adjoint Matching's paper.

    python main.py --config configs/imagenet256_continuous_adjoint.py --workdir runs/imagenet256_continuous_adjoint \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=DIR --config.liked=FOLDER

As imagenet256_adjoint_matching.py (Domingo-Enrich et al. 2024), but the adjoint is that of the controlled chain, as in
digits_continuous_adjoint.py, which costs a derivative through the tuned velocity too. Ours: not run.
"""

from ml_collections import ConfigDict

from configs import imagenet256_adjoint_matching, imagenet256_rewards, imagenet256_sit, rewards
from configs.trained_models import Flow
from losses import full_adjoint
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values of imagenet256_adjoint_matching.py.

    Raises:
        ValueError: naming the sizes that there are.
    """
    return imagenet256_adjoint_matching.get_config(size)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    chain = imagenet256_rewards.chain(config)
    return imagenet256_rewards.experiment(config, rewards.matching(config, chain, adjoint=full_adjoint))


def flow(config: ConfigDict) -> Flow:
    """What this run is to those that go on from it."""
    return imagenet256_sit.flow(config)
