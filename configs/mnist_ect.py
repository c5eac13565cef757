r"""Easy Consistency Tuning on MNIST (Geng et al. 2024).

    python main.py --config configs/mnist_ect.py --workdir runs/mnist_ect --config.data_dir=DIR \
        --config.teacher_run=runs/mnist_teacher

The method of `digits_ect` at 28 pixels.
"""

from ml_collections import ConfigDict

from configs import digits_ect, mnist
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_ect.py, at 28 pixels."""
    return mnist.budget(digits_ect.get_config())


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return digits_ect.experiment(config, mnist.source(config), mnist.fields)
