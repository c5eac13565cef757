r"""Align Your Flow on latents of ImageNet-256 (Sabour et al. 2025): a flow map distilled from a SiT, in four sizes.

    python main.py --config configs/imagenet256_ayf.py --workdir runs/imagenet256_ayf \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit
    python main.py --config configs/imagenet256_ayf.py:B --workdir runs/imagenet256_ayf_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet256_sit_b \
        --config.weaker_run=runs/imagenet256_sit_s

Data as in imagenet256_sit.py. The teacher is a run of that config, or a converted SiT or REPA of the size, and the
student starts from its weights; the layers of s start at random. It is guided by --config.guidance against its null
class, or, as in the paper, against a weaker flow of these latents in --config.weaker_run: a shorter run, or a smaller
network. --config.lagrangian=True asks the teacher where a jump ends (AYF-LMD).

Paper: none has this run; its own are EDM2's S on ImageNet-64 and ImageNet-512. Hardware: none to name. Ours: not run.
The values of the optimizer and of the tangent are those of imagenet256_scm_distillation.py, guidance is SiT's for
samples: unverified.

Differs from the paper: uniform times, with shares at s = 0 and s = t that are our own; no adversarial stage; one
scale of guidance, of all four channels, where SiT's own samples have it of three.
"""

from functools import partial

import optax
from ml_collections import ConfigDict

import data
from configs import aligning, flow_maps, flows, glue, imagenet256, imagenet256_flow_maps, imagenet256_mean_flow
from train import Experiment, averages


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT."""
    config = imagenet256_flow_maps.common(size)
    config.update(
        {
            "weaker_run": "",
            "guidance": 1.5,  # of the teacher by the weaker run; without that by its null class
            "lagrangian": False,
            "to_data": 0.2,
            "same": 0.2,
            "tangent_c": 0.1,
            "tangent_warmup_steps": 10_000,
            "steps": 200_000,
            "batch_size": 1024,
            "adam_b2": 0.99,
        }
    )
    return config


def teacher(config: ConfigDict, source: data.Source) -> aligning.Teacher:
    """The flow in config.teacher_run, guided."""
    if not config.weaker_run:
        return aligning.teacher(config.teacher_run, source, guidance=config.guidance)
    better, weaker = (aligning.teacher(run, source) for run in (config.teacher_run, config.weaker_run))
    return aligning.by_weaker(better, weaker, scale=config.guidance)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet256.space(config)
    source = space.source
    model = imagenet256_mean_flow.network(config, source.num_classes)
    u_of, followed = flow_maps.average_velocity(model), teacher(config, source)
    samplers = flow_maps.flow_map_samplers(flow_maps.jumps_of(u_of), source.shape, config.step_counts)
    return Experiment(
        init=glue.initialiser(model, source),
        **flows.start(config, model, source),
        frozen=followed.params,
        frozen_like=followed.like,
        objective=aligning.objective(config, u_of, followed, warmup_steps=config.tangent_warmup_steps),
        optimizer=optax.adam(config.learning_rate, b2=config.adam_b2),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
