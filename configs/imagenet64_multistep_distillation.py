r"""Multistep consistency distillation on ImageNet-64 (Heek et al. 2024, alg. 2), a model for each number of steps.

    python main.py --config configs/imagenet64_multistep_distillation.py \
        --workdir runs/imagenet64_multistep_distillation --config.data=FOLDER \
        --config.teacher_run=runs/imagenet64_cosine --config.segments=2

Paper: FID-50k 4.3, 2.0, 1.7, 1.6, 1.5 in 1, 2, 4, 8, 16 steps with its small UViT of 394 M parameters, the network
here, on 64 TPU v5e; 3.2, 1.9, 1.6, 1.4, 1.4 with the large one of 1.23 B on 256, for about 21 hours. Ours: not run. As
imagenet64_multistep_training.py, with steps of the teacher's.
"""

from ml_collections import ConfigDict

from configs import imagenet64_multistep_training

build = imagenet64_multistep_training.build


def get_config() -> ConfigDict:
    """The values of imagenet64_multistep_training.py, with steps of the teacher's."""
    config = imagenet64_multistep_training.get_config()
    config.distill = True
    return config
