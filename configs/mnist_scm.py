r"""Simplified continuous-time consistency models on MNIST (Lu & Song 2024): sCT, and sCD with --config.distill=True.

    python main.py --config configs/mnist_scm.py --workdir runs/mnist_scm --config.data_dir=DIR \
        --config.teacher_run=runs/mnist_teacher

The method of `digits_scm` at 28 pixels.
"""

from ml_collections import ConfigDict

from configs import digits_scm, mnist
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_scm.py, at 28 pixels."""
    return mnist.budget(digits_scm.get_config())


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return digits_scm.experiment(config, mnist.source(config), mnist.fields)
