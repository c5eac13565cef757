r"""iLCT on MNIST's latents (Dao et al. 2025): consistency training from random weights.

    python main.py --config configs/mnist_latent_ilct.py --workdir runs/mnist_latent_ilct \
        --config.data_dir=DIR --config.latents=runs/mnist_latents \
        --config.autoencoder_run=runs/mnist_autoencoder

The method of `digits_ilct`, at the paper's noise levels.
"""

from ml_collections import ConfigDict

from configs import digits_ilct, mnist_latents
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_ilct.py, with the noise levels of latents."""
    config = mnist_latents.budget(digits_ilct.get_config())
    config.update({"mean": -1.1, "std": 2.0})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = mnist_latents.space(config)
    return digits_ilct.experiment(config, space.source, mnist_latents.fields_in(space))
