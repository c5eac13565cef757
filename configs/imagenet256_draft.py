r"""DRaFT on latents of ImageNet-256 (Clark et al. 2023): a reward is differentiated through the sampler of a SiT.

    python main.py --config configs/imagenet256_draft.py --workdir runs/imagenet256_draft \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=DIR --config.liked=FOLDER
    python main.py --config configs/imagenet256_draft.py:B --workdir runs/imagenet256_draft_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=DIR --config.liked=FOLDER

DIR, data and reward as in imagenet256_adjoint_matching.py, and nothing that holds the samples to the flow's: what is
left of their variety is a matter of when training stops. DRaFT-1, whose gradient is that of the last step of the
sampler; --config.last=40 is through all of it.

Paper: none has this run; there Stable Diffusion is tuned. Batch, steps and Adam are those of
imagenet256_adjoint_matching.py, not the paper's. Ours: not run.

Differs: a whole network instead of LoRA; Euler's method for the flow in place of DDIM, which on this path it is; no
guidance while training.
"""

import jax
from ml_collections import ConfigDict

from configs import imagenet256_rewards, imagenet256_sit
from configs.trained_models import Flow
from losses import direct_backpropagation, transitions
from losses.adjoint_matching import Reward
from losses.types import Loss, Net
from train import Experiment


def get_config(size: str = "XL") -> ConfigDict:
    """The values that the three methods share; one step is differentiated.

    Raises:
        ValueError: naming the sizes that there are.
    """
    config = imagenet256_rewards.get_config(size)
    config.last = 1
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    chain = imagenet256_rewards.chain(config, variance=transitions.no_noise)

    def loss(net: Net, base: Net, reward: Reward, x: jax.Array, key: jax.Array) -> Loss:
        return direct_backpropagation(net, x, key, reward=reward, transitions=chain, last=config.last)

    return imagenet256_rewards.experiment(config, loss, compared=False)


def flow(config: ConfigDict) -> Flow:
    """What this run is to those that go on from it."""
    return imagenet256_sit.flow(config)
