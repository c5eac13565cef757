r"""Continuous-time consistency distillation on ImageNet-64 (Lu & Song 2024, alg. 1): sCD, in four sizes.

    python main.py --config configs/imagenet64_scm_distillation.py --workdir runs/imagenet64_scm_distillation \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_trigflow
    python main.py --config configs/imagenet64_scm_distillation.py:XL --workdir runs/imagenet64_scm_distillation_xl \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_trigflow_xl

Paper: FID-50k 2.97, 2.79, 2.43, 2.44 in one step and 2.07, 1.89, 1.70, 1.66 in two for S, M, L, XL. Hardware: not said.
Ours: not run. As imagenet64_scm_training.py, where the ODE is the teacher's and nothing is dropped out.
"""

from ml_collections import ConfigDict

from configs import imagenet64_scm_training

build = imagenet64_scm_training.build


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size (table 3)."""
    config = imagenet64_scm_training.get_config(size)
    config.update({"distill": True, "dropout": 0.0})
    return config
