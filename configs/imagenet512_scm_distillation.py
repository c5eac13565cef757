r"""Continuous-time consistency distillation on latents of ImageNet-512 (Lu & Song 2024, alg. 1): sCD, in five sizes.

    python main.py --config configs/imagenet512_scm_distillation.py --workdir runs/imagenet512_scm_distillation \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow
    python main.py --config configs/imagenet512_scm_distillation.py:XXL \
        --workdir runs/imagenet512_scm_distillation_xxl \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow_xxl

The teacher is guided by a random scale w for each example, which the network is given too: so the scale of the samples
is chosen when they are drawn, and costs no second call. A converted EDM2, which has no null class, is guided against an
unconditional one in --config.guiding_run, its smallest in the publication.

Paper: FID-50k 3.07, 2.75, 2.55, 2.40, 2.28 in one step and 2.50, 2.26, 2.04, 1.93, 1.88 in two for S, M, L, XL, XXL, at
guidance 1.5 (S) or 1.3 in one step and 1.4 or 1.2 in two. Hardware: not said. Ours: not run. Data as
in imagenet512_trigflow.py. There is no official code: that w is uniform from 1 up to the paper's 2 is unverified,
and how the network embeds it is our choice.
"""

from ml_collections import ConfigDict

from configs import glue, guided_scm, guiding, imagenet, imagenet512, imagenet512_scm_training, teachers
from models.edm2 import edm2_scm
from train import Experiment

SIZES = {
    "S": {"learning_rate": 1e-4, "dropout": 0.0, "sampled_guidance": (1.5, 1.4)},
    "M": {"learning_rate": 9e-5, "dropout": 0.1, "sampled_guidance": (1.3, 1.2)},
    "L": {"learning_rate": 8e-5, "dropout": 0.1, "sampled_guidance": (1.3, 1.2)},
    "XL": {"learning_rate": 7e-5, "dropout": 0.1, "sampled_guidance": (1.3, 1.2)},
    "XXL": {"learning_rate": 6.5e-5, "dropout": 0.1, "sampled_guidance": (1.3, 1.2)},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size (tables 4 and 5)."""
    config = imagenet512_scm_training.get_config()
    del config.distill, config.guidance
    config.update(imagenet.preset(SIZES, size))
    config.update({"steps": 200_000, "guidance_range": (1.0, 2.0), "guiding_run": ""})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet512.space(config)
    _, high = guiding.scales(config)
    reference = None
    if config.guiding_run:
        reference = teachers.teacher(
            config.guiding_run, shape=space.source.shape, num_classes=0, sigma_data=config.sigma_data
        )
    teacher = imagenet.teacher(config, space.source, guidance=1.0 if reference else high)
    dropout = {"dropout_resolutions": tuple(config.dropout_resolutions)}
    model = imagenet.network(edm2_scm, config, guided=True, remat=glue.remat(config.remat), **dropout)
    learned, samplers = guided_scm.distillation(
        config,
        teachers.built_as(teacher, model),
        guided_scm.Guided(teacher, reference),
        space.source,
        zip(config.grids, config.sampled_guidance, strict=True),
        warmup_steps=config.warmup_steps,
    )
    return Experiment(
        **learned,
        optimizer=imagenet.edm2_optimizer(config, eps=config.adam_eps),
        **imagenet.power_averages(config),
        **imagenet512.fields(config, space, samplers, average=imagenet.power_name(config.sigma_rels[0])),
    )
