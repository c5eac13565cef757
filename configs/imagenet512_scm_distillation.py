r"""Continuous-time consistency distillation on latents of ImageNet-512 (Lu & Song 2024, alg. 1): sCD, in five sizes.

    python main.py --config configs/imagenet512_scm_distillation.py --workdir runs/imagenet512_scm_distillation \
        --config.teacher_run=runs/imagenet512_trigflow
    python main.py --config configs/imagenet512_scm_distillation.py:XXL \
        --workdir runs/imagenet512_scm_distillation_xxl --config.teacher_run=runs/imagenet512_trigflow_xxl

Paper: FID-50k 3.07, 2.75, 2.55, 2.40, 2.28 in one step and 2.50, 2.26, 2.04, 1.93, 1.88 in two for S, M, L, XL, XXL.
Hardware: not said. Ours: not run; latents are not read yet, so the run can only be looked at. Differs: one scale of
guidance, the paper's best of one-step samples, where the paper draws it up to 2 and shows it to the network (the latter
is unverified).
"""

from ml_collections import ConfigDict

from configs import imagenet, imagenet512_scm_training

build = imagenet512_scm_training.build

SIZES = {
    "S": {"learning_rate": 1e-4, "dropout": 0.0, "guidance": 1.5},
    "M": {"learning_rate": 9e-5, "dropout": 0.1, "guidance": 1.3},
    "L": {"learning_rate": 8e-5, "dropout": 0.1, "guidance": 1.3},
    "XL": {"learning_rate": 7e-5, "dropout": 0.1, "guidance": 1.3},
    "XXL": {"learning_rate": 6.5e-5, "dropout": 0.1, "guidance": 1.3},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size (tables 4 and 5)."""
    config = imagenet512_scm_training.get_config()
    config.update(imagenet.preset(SIZES, size))
    config.update({"distill": True, "steps": 200_000})
    return config
