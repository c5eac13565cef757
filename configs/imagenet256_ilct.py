r"""Improved training of latent consistency models on ImageNet-256 (Dao et al. 2025): iLCT from a published transformer.

    python main.py --config configs/imagenet256_ilct.py --workdir runs/imagenet256_ilct \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/sit

Data as in imagenet256_sit.py: latents times 0.18215, of a deviation of about 1, of which the model sees a half, so that
the paper's noise levels are what they are there. Class-conditional. The network is SiT's transformer, of size S, B, L
or XL; --config.teacher_run is a run or a converted file of a SiT, REPA or DiT of the size, whose denoiser it is at
first. Without one it starts from random weights, as the paper does.

Paper: has no such run; the authors' page has FID 16.75 in one step for ImageNet after 560 epochs with a DiT-B/2
(unverified). Ours: not run. Batch, steps and size are ours, the other values those of latents_ilct.py.

Differs from latents_ilct.py: the norms are the transformer's, whose scale is the condition's, where the paper has norms
without a scale; noise is not paired with latents, which has to be done within classes, and of 128 examples, a group
there, nine in ten are alone in theirs.
"""

import math
from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, imagenet256, imagenet256_sit, latents, latents_ilct, teachers
from losses import edm, independent
from losses.types import Net
from models import preconditioning
from train import Experiment, Params, averages

SEEN = 0.5  # of SiT's latents, whose deviation is about 1


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
            "teacher_run": "",  # a flow or a DiT to start from, such as a converted SiT
            # network
            **imagenet256.transformer(size),
            "bfloat16": True,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            "batch_size": 1024,
            "steps": 560 * 1_281_167 // 1024,
            **latents_ilct.values(),
            "tensor": 1,
            "averages_on_host": False,
        }
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = seen_smaller(imagenet256.space(config))
    source = space.source
    teacher = teachers.teacher(
        config.teacher_run,
        shape=source.shape,
        num_classes=source.num_classes,
        sigma_data=config.sigma_data / SEEN,
    )
    model = teachers.built_as(teacher, imagenet256_sit.network(config, source.num_classes))
    F_of = teachers.network_of(teacher, model, config.sigma_data / SEEN)

    def f(params: Params, labels: jax.Array | None) -> Net:
        F = F_of(params, labels)
        # The network knows noise of whole latents.
        return preconditioning.consistency(
            lambda x, c_noise: F(x, c_noise - math.log(SEEN) / 4), config.sigma_data, config.sigma_min
        )

    samplers = glue.consistency_samplers(f, source.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    return Experiment(
        init=glue.initialiser(model, source),
        **teachers.start(config.teacher_run, teacher),
        objective=latents_ilct.objective_of(config, f, elements=math.prod(source.shape), coupling=independent),
        optimizer=latents_ilct.optimizer(config),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )


def seen_smaller(space: latents.Space) -> latents.Space:
    """The same latents, which a model sees SEEN times as large."""
    return space._replace(
        scale=space.scale._replace(factor=tuple(SEEN * factor for factor in space.scale.factor)),
        decode=lambda params, z: space.decode(params, z / SEEN),
    )
