r"""Continuous-time consistency training on latents of ImageNet-512 (Lu & Song 2024, alg. 1): sCT, in five sizes.

    python main.py --config configs/imagenet512_scm_training.py --workdir runs/imagenet512_scm_training \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow
    python main.py --config configs/imagenet512_scm_training.py:XXL --workdir runs/imagenet512_scm_training_xxl \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow_xxl

Paper: FID-50k 10.13, 5.84, 5.15, 4.33, 4.29 in one step and 9.86, 5.53, 4.65, 3.73, 3.76 in two for S, M, L, XL, XXL.
Hardware: not said. Ours: not run. Data as in imagenet512_trigflow.py. A converted EDM2 is a teacher, too, and its
student is built as it is: without double normalisation, and with Fourier features of ln(sigma) / 4, for which the paper
found continuous time unstable.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import imagenet, imagenet64_scm_training, imagenet512
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
    config = imagenet512.on_latents(imagenet64_scm_training.get_config())
    config.update(imagenet.preset(SIZES, size))
    config.update({"steps": 100_000, "mean": -0.8, "std": 1.6, "reference_steps": 70_000})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet512.space(config)
    return imagenet64_scm_training.experiment(config, space.source, partial(imagenet512.fields, config, space))
