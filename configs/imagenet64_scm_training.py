r"""Continuous-time consistency training on ImageNet-64 (Lu & Song 2024, alg. 1): sCT, in four sizes.

    python main.py --config configs/imagenet64_scm_training.py --workdir runs/imagenet64_scm_training \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_trigflow
    python main.py --config configs/imagenet64_scm_training.py:XL --workdir runs/imagenet64_scm_training_xl \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_trigflow_xl

Paper: FID-50k 3.23, 2.25, 2.08, 2.04 in one step and 2.93, 1.81, 1.57, 1.48 in two for S, M, L, XL. Hardware: not said.
Ours: not run. There is no official code. Without teacher_run it starts at random, which the paper does not do. The
network is in float32, since its derivative is needed; the ramp of the learning rate is EDM2's (unverified).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

import data
from configs import glue, guiding, imagenet, teachers
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss, Net
from models import preconditioning
from models.edm2 import edm2_scm
from train import Batch, Context, Experiment, Params

SIZES = {
    "S": {"learning_rate": 1e-4, "dropout": 0.45},
    "M": {"learning_rate": 9e-5, "dropout": 0.45},
    "L": {"learning_rate": 8e-5, "dropout": 0.45},
    "XL": {"learning_rate": 7e-5, "dropout": 0.45},
}


def get_config(size: str = "S") -> ConfigDict:
    """The paper's values for a size (table 3); with `distill` the velocity is the teacher's."""
    config = imagenet.common()
    config.update(imagenet.preset(SIZES, size))
    config.update(
        {
            "teacher_run": "",
            "distill": False,
            "guidance": 1.0,
            "bfloat16": False,
            "remat": "none",
            "batch_size": 2048,
            "steps": 400_000,
            "dropout_resolutions": (16, 8),
            "mean": -1.0,
            "std": 1.6,
            "tangent_c": 0.1,
            "warmup_steps": 10_000,
            "reference_steps": 35_000,
            "ramp_images": 10e6,
            "adam_eps": 1e-11,
            "sigma_rels": (0.05, 0.10),
            "snapshot_every": 4_096,
            "grids": ((1.56455,), (1.56455, 1.1)),  # arctan(80 / sigma_data), and the published middle time
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    return experiment(config, source, partial(imagenet.fields, config, source))


def experiment(config: ConfigDict, source: data.Source, fields: Callable[..., dict[str, Any]]) -> Experiment:
    """The same on any examples, images or latents, the rest of the experiment being `fields(samplers, average=)`."""
    dropout = {"dropout_resolutions": tuple(config.dropout_resolutions)}
    teacher = imagenet.teacher(config, source, guidance=config.guidance, starts=not config.distill)
    model = teachers.built_as(teacher, imagenet.network(edm2_scm, config, remat=glue.remat(config.remat), **dropout))
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)
    path = scaled(trig, config.sigma_data)
    init = glue.weighted_initialiser(model, source)

    def initial() -> Params:
        return {**init(jax.random.key(config.seed)), "network": teacher.params()}

    def f(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.trigflow(F(params["network"], labels), config.sigma_data)

    def velocity(frozen: Params, labels: jax.Array | None) -> Net:
        guided = guiding.classifier_free(
            lambda labels: teacher.diffusion.on_path(frozen, labels, path),
            labels,
            num_classes=source.num_classes,
            scale=config.guidance,
        )
        return conversions.denoiser_to_velocity(path, guided)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        return continuous_consistency(
            F(params["network"], labels, key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=velocity(context.frozen, labels) if config.distill else None,
            warmup=curricula.tangent_warmup(context.step, steps=config.warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    samplers = glue.consistency_samplers(f, source.shape, config.grids, path=path)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params if config.distill else lambda: None,
        frozen_like=teacher.like if config.distill else None,
        objective=objective,
        optimizer=imagenet.edm2_optimizer(config, eps=config.adam_eps),
        **imagenet.power_averages(config),
        **fields(samplers, average=imagenet.power_name(config.sigma_rels[0])),
    )
