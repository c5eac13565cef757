r"""Continuous-time consistency distillation on CIFAR-10 (Lu & Song 2024, alg. 1): sCD of a TrigFlow diffusion model.

    python main.py --config configs/cifar10_scm_distillation.py --workdir runs/cifar10_scm_distillation \
        --config.data_dir=DIR --config.teacher_run=runs/cifar10_trigflow

Paper: FID-50k 3.66 in one step and 2.52 in two, unconditional, 400k steps of batch 512 (unverified). Hardware: not
said. Ours: not run. As cifar10_scm_training.py, where the ODE is the teacher's and nothing is dropped out.
"""

from ml_collections import ConfigDict

from configs import cifar10_scm_training

build = cifar10_scm_training.build


def get_config() -> ConfigDict:
    """The values of cifar10_scm_training.py for distillation."""
    config = cifar10_scm_training.get_config()
    config.update({"distill": True, "dropout": 0.0})
    return config
