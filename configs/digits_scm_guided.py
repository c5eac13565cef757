r"""Continuous-time consistency distillation at any guidance scale, on scikit-learn's digits (Lu & Song 2024): sCD.

    python main.py --config configs/digits_teacher.py --workdir runs/digits_teacher
    python main.py --config configs/digits_scm_guided.py --workdir runs/digits_scm_guided \
        --config.teacher_run=runs/digits_teacher

As digits_scm.py with --config.distill=True, where the teacher is guided by a random scale w for each example, which the
network is given too: what the paper does on ImageNet-512. One network then samples at any scale, one call a step.
"""

import itertools
import math

from ml_collections import ConfigDict

import data
from configs import digits, digits_scm, digits_students, guided_scm, guiding
from train import Experiment


def get_config() -> ConfigDict:
    """The values of digits_scm.py."""
    config = digits_scm.get_config()
    del config.distill, config.guidance
    config.update({"guidance_range": (1.0, 2.0), "grids": ((80.0,), (80.0, 0.8)), "sampled_guidance": (1.0, 1.5, 2.0)})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    _, high = guiding.scales(config)
    angles = tuple(tuple(math.atan(sigma / config.sigma_data) for sigma in grid) for grid in config.grids)
    learned, samplers = guided_scm.distillation(
        config,
        digits.network(config, source).clone(guided=True),
        guided_scm.Guided(digits_students.teacher(config, source, guidance=high)),
        source,
        itertools.product(angles, config.sampled_guidance),
        warmup_steps=max(int(config.steps * config.warmup_share), 1),
    )
    return Experiment(**learned, **digits.fields(config, source, samplers))
