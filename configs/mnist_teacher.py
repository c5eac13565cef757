"""A TrigFlow diffusion model on MNIST: the teacher of the MNIST students.

    python main.py --config configs/mnist_teacher.py --workdir runs/mnist_teacher --config.data_dir=DIR

The method of `digits_teacher` at 28 pixels.
"""

from ml_collections import ConfigDict

from configs import digits_teacher, mnist, trained_models
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_teacher.py, at 28 pixels."""
    return mnist.budget(digits_teacher.get_config(), steps=4000)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return digits_teacher.experiment(config, mnist.source(config), mnist.fields)


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return digits_teacher.diffusion_of(config, mnist.source(config))
