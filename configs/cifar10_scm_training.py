r"""Continuous-time consistency training on CIFAR-10 (Lu & Song 2024, alg. 1): sCT, from a TrigFlow diffusion model.

    python main.py --config configs/cifar10_scm_training.py --workdir runs/cifar10_scm_training --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_trigflow

Paper: FID-50k 2.97 in one step and 2.06 in two, unconditional, 400k steps of batch 512 (unverified). Hardware: not
said. Ours: not run. There is no official code; where the paper was not at hand the values are those of a published
re-implementation (RAdam, half-life average), which reports 3.23 in one step. The tangent is normalised by the norm of
the whole image; that re-implementation divides by the root mean square. Without teacher_run it starts at random, which
the paper does not do. A JVP costs about two forward passes.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, cifar10_trigflow, glue, teachers
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss, Net
from models import preconditioning
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values, and the re-implementation's; with `distill` the velocity is the teacher's."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",
            "distill": False,
            "double_norm": False,
            "batch_size": 512,
            "steps": 400_000,
            "dropout": 0.2,
            "sigma_data": 0.5,
            "mean": -1.0,
            "std": 1.4,
            "tangent_c": 0.1,
            "warmup_steps": 10_000,
            "learning_rate": 1e-4,
            "average_images": 500e3,  # unverified
            "grids": ((1.56455,), (1.56455, 1.1)),  # arctan(80 / sigma_data), and the published middle time
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images, starts=not config.distill)
    model = teachers.built_as(teacher, cifar10_trigflow.network(config))
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)
    path = scaled(trig, config.sigma_data)
    init = glue.weighted_initialiser(model, images)

    def initial() -> Params:
        return {**init(jax.random.key(config.seed)), "network": teacher.params()}

    def f(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.trigflow(F(params["network"], labels), config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        velocity = None
        if config.distill:
            velocity = conversions.denoiser_to_velocity(path, teacher.diffusion.on_path(context.frozen, labels, path))
        return continuous_consistency(
            F(params["network"], labels, key_dropout),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=velocity,
            warmup=curricula.tangent_warmup(context.step, steps=config.warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    average = partial(averages.half_life, images=config.average_images, batch_size=config.batch_size)
    samplers = glue.consistency_samplers(f, images.shape, config.grids, path=path)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params if config.distill else lambda: None,
        objective=objective,
        optimizer=optax.radam(config.learning_rate, b2=0.99),
        averages={"ema": average},
        **cifar10.fields(config, images, samplers, flip=True),
    )
