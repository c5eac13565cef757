r"""Continuous-time consistency distillation of transformers on latents of ImageNet-256: sCD of a SiT, a REPA or a DiT.

    python main.py --config configs/imagenet256_scm_distillation.py --workdir runs/imagenet256_scm_distillation \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit
    python main.py --config configs/imagenet256_scm_distillation.py:B --workdir runs/imagenet256_scm_distillation_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit_b

Data as in imagenet256_sit.py. The teacher is a run of that config, or a converted SiT, REPA or DiT of the size; guided
by a random scale that the student is told (Lu & Song 2024), which starts as it is, read at TrigFlow's angles.

Paper: none has this run; Chen et al. 2025 (SANA-Sprint) turn flows into TrigFlow and distil them so, from text. Ours:
not run. The values are those of imagenet512_scm_training.py, with times in units of these latents' deviation of about
1, Adam at a constant rate and SiT's average: unverified. A DiT knows a thousand steps alone, and is asked between them.
"""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import glue, guided_scm, guiding, imagenet256, judged, teachers
from models import DiT
from train import Experiment, averages


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT.

    Raises:
        ValueError: naming the sizes that there are.
    """
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            "teacher_run": "",
            # network
            **imagenet256.transformer(size),
            "dropout": 0.0,
            "bfloat16": False,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            # times, tangent, guidance
            "sigma_data": 1.0,
            "mean": -0.8 + math.log(2.0),
            "std": 1.6,
            "tangent_c": 0.1,
            "tangent_warmup_steps": 10_000,
            "guidance_range": (1.0, 2.0),
            # optimizer
            "steps": 200_000,
            "batch_size": 1024,
            "learning_rate": 1e-4,
            "adam_b2": 0.99,
            "average_decay": 0.9999,
            "accumulate": 1,
            "fsdp": 1,
            "tensor": 1,
            "averages_on_host": False,
            # sampling and judging: arctan(80 / 0.5), and the published middle time
            "grids": ((1.56455,), (1.56455, 1.1)),
            "sampled_guidance": (1.5, 1.5),
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def network(config: ConfigDict, num_classes: int) -> DiT:
    """SiT's transformer, told a guidance scale."""
    shape: dict[str, Any] = {name: config[name] for name in ("patch", "width", "depth", "heads", "dropout")}
    return DiT(
        **shape,
        num_classes=num_classes,
        guided=True,
        remat=glue.remat(config.remat),
        unroll=config.unroll,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet256.space(config)
    source, (_, high) = space.source, guiding.scales(config)
    teacher = teachers.teacher(
        config.teacher_run,
        shape=source.shape,
        num_classes=source.num_classes,
        sigma_data=config.sigma_data,
        guidance=high,
    )
    learned, samplers = guided_scm.distillation(
        config,
        teachers.built_as(teacher, network(config, source.num_classes)),
        guided_scm.Guided(teacher),
        source,
        zip(config.grids, config.sampled_guidance, strict=True),
        warmup_steps=config.tangent_warmup_steps,
    )
    return Experiment(
        **learned,
        optimizer=optax.adam(config.learning_rate, b2=config.adam_b2),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
