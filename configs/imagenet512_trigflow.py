r"""TrigFlow diffusion on latents of ImageNet-512 (Lu & Song 2024): what sCM starts from and distils, in five sizes.

    python main.py --config configs/imagenet512_trigflow.py --workdir runs/imagenet512_trigflow \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet512_trigflow.py:XXL --workdir runs/imagenet512_trigflow_xxl \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 512 x 512 images as 64 x 64 x 4 latents, standardised to 0.5, of the run of diffusers_autoencoder.py:edm2, written
by `main.py --mode=encode`.

Paper: FID-50k 2.29, 2.00, 1.87, 1.80, 1.73 in sizes S, M, L, XL, XXL at NFE 126, half of them for guidance of scale 1.4
(S) or 1.2. Hardware: not said. Ours: not run. How the paper
gets its unguided model is not known to us; here a tenth of the labels is dropped.
"""

from functools import partial

from ml_collections import ConfigDict

from configs import imagenet, imagenet64_trigflow, imagenet512, trained_models
from train import Experiment

# The paper's table 4; the first of sigma_rels is the average that samples and students take.
SIZES = {
    "S": {"learning_rate": 0.010, "dropout": 0.0, "steps": 1_048_000, "sigma_rels": (0.025, 0.05, 0.10)},
    "M": {"learning_rate": 0.009, "dropout": 0.1, "steps": 1_048_000, "sigma_rels": (0.03, 0.05, 0.10)},
    "L": {"learning_rate": 0.008, "dropout": 0.1, "steps": 696_000, "sigma_rels": (0.015, 0.05, 0.10)},
    "XL": {"learning_rate": 0.007, "dropout": 0.1, "steps": 598_000, "sigma_rels": (0.02, 0.05, 0.10)},
    "XXL": {"learning_rate": 0.0065, "dropout": 0.1, "steps": 376_000, "sigma_rels": (0.015, 0.05, 0.10)},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size."""
    config = imagenet512.on_latents(imagenet64_trigflow.get_config())
    config.update(imagenet.preset(SIZES, size))
    guidance = 1.4 if size == "S" else 1.2
    config.update({"mean": -0.4, "std": 1.0, "reference_steps": 70_000, "label_dropout": 0.1, "guidance": guidance})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet512.space(config)
    return imagenet64_trigflow.experiment(config, space.source, partial(imagenet512.fields, config, space))


def diffusion(config: ConfigDict) -> trained_models.Diffusion:
    """What this run is to its students."""
    return imagenet64_trigflow.diffusion_of(config, imagenet512.SHAPE)
