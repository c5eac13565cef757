r"""Simplified continuous-time consistency models on MNIST (Lu & Song 2024): sCT, and sCD with --config.distill=True.

    python main.py --config configs/mnist_scm.py --workdir runs/mnist_scm --config.data_dir=DIR \
        --config.teacher_run=runs/mnist_teacher

The method of `digits_scm` at 28 pixels, at a quarter of its learning rate: the tangents are normalised, so their noise
does not fall as the network learns, and at 2e-3 the network forgets the labels (agreement 0.14 in one call, seed 0).
"""

from ml_collections import ConfigDict

from configs import digits_scm, mnist
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_scm.py, at 28 pixels."""
    config = mnist.budget(digits_scm.get_config())
    config.learning_rate = 5e-4
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return digits_scm.experiment(config, mnist.source(config), mnist.fields)
