r"""Continuous-time consistency distillation on latents of ImageNet-512 (Lu & Song 2024, alg. 1): sCD, in five sizes.

    python main.py --config configs/imagenet512_scm_distillation.py --workdir runs/imagenet512_scm_distillation \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow
    python main.py --config configs/imagenet512_scm_distillation.py:XXL \
        --workdir runs/imagenet512_scm_distillation_xxl \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/imagenet512_trigflow_xxl

The teacher is guided by a random scale w for each example, which the network is given too: so the scale of the samples
is chosen when they are drawn, and costs no second call.

Paper: FID-50k 3.07, 2.75, 2.55, 2.40, 2.28 in one step and 2.50, 2.26, 2.04, 1.93, 1.88 in two for S, M, L, XL, XXL, at
guidance 1.5 (S) or 1.3 in one step and 1.4 or 1.2 in two. Hardware: not said. Ours: not run. Data as
in imagenet512_trigflow.py. There is no official code: that w is uniform from 1 up to the paper's 2 is unverified,
and how the network embeds it is our choice.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, imagenet, imagenet512, imagenet512_scm_training, teachers
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss, Net
from models import preconditioning
from models.edm2 import edm2_scm
from train import Batch, Context, Experiment, Params

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
    config.update({"steps": 200_000, "guidance_range": (1.0, 2.0)})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = imagenet512.space(config)
    source = space.source
    low, high = config.guidance_range
    teacher = imagenet.teacher(config, source, guidance=high)
    model = teachers.built_as(
        teacher,
        imagenet.network(
            edm2_scm,
            config,
            dropout_resolutions=tuple(config.dropout_resolutions),
            guided=True,
            remat=glue.remat(config.remat),
        ),
    )
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)
    path = scaled(trig, config.sigma_data)
    init = glue.weighted_initialiser(model, source)

    def initial() -> Params:
        start = init(jax.random.key(config.seed))
        return {**start, "network": teachers.extended_start(model, source, start["network"], teacher.params())}

    def velocity(frozen: Params, labels: jax.Array, w: jax.Array) -> Net:
        return conversions.denoiser_to_velocity(path, teachers.guided(teacher, frozen, labels, path, scale=w))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout, key_w = jax.random.split(key, 3)
        labels = batch["label"]
        w = jax.random.uniform(key_w, labels.shape, minval=low, maxval=high)
        return continuous_consistency(
            F(params["network"], labels, key_dropout, w),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=velocity(context.frozen, labels, w),
            warmup=curricula.tangent_warmup(context.step, steps=config.warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    def f(w: float) -> glue.NetOf:
        return lambda params, labels: preconditioning.trigflow(F(params["network"], labels, w=w), config.sigma_data)

    sampled_at = zip(config.grids, config.sampled_guidance, strict=True)
    samplers = glue.guided_consistency_samplers(f, source.shape, sampled_at, path=path)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params,
        frozen_like=teacher.like,
        objective=objective,
        optimizer=imagenet.edm2_optimizer(config, eps=config.adam_eps),
        **imagenet.power_averages(config),
        **imagenet512.fields(config, space, samplers, average=imagenet.power_name(config.sigma_rels[0])),
    )
