r"""Continuous-time consistency training on latents of ImageNet-512 (Lu & Song 2024, alg. 1): sCT, in five sizes.

    python main.py --config configs/imagenet512_scm_training.py --workdir runs/imagenet512_scm_training \
        --config.teacher_run=runs/imagenet512_trigflow
    python main.py --config configs/imagenet512_scm_training.py:XXL --workdir runs/imagenet512_scm_training_xxl \
        --config.teacher_run=runs/imagenet512_trigflow_xxl

Paper: FID-50k 10.13, 5.84, 5.15, 4.33, 4.29 in one step and 9.86, 5.53, 4.65, 3.73, 3.76 in two for S, M, L, XL, XXL.
Hardware: not said. Ours: not run; latents are not read yet, so the run can only be looked at.
"""

from ml_collections import ConfigDict

from configs import imagenet, imagenet64_scm_training
from train import Experiment

SIZES = {
    "S": {"learning_rate": 1e-4, "dropout": 0.25},
    "M": {"learning_rate": 9e-5, "dropout": 0.35},
    "L": {"learning_rate": 8e-5, "dropout": 0.35},
    "XL": {"learning_rate": 7e-5, "dropout": 0.35},
    "XXL": {"learning_rate": 6.5e-5, "dropout": 0.35},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size (table 4)."""
    config = imagenet64_scm_training.get_config()
    config.update(imagenet.preset(SIZES, size))
    config.update({"steps": 100_000, "mean": -0.8, "std": 1.6, "reference_steps": 70_000})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return imagenet64_scm_training.experiment(config, imagenet.latents(config))
