r"""MeanFlow on CIFAR-10 (Geng et al. 2025): the mean velocity between any two times, from scratch, unconditional.

    python main.py --config configs/cifar10_mean_flow.py --workdir runs/cifar10_mean_flow --config.data_dir=DIR

Paper: FID-50k 2.92 in one step (unverified); about 2.8 with the time law of the authors' later code, which is this one.
Hardware: 8 H200, 0.21 s a step. Ours: not run. The reported loss stays near 6, the fourth root of the squared error.

Differs: of EDM's augmentation flips alone; the embedding of t - s is added to that of t after a layer, where theirs are
concatenated before one; three of every four examples have s < t where theirs are drawn; the average is updated every
step and not every 16th.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, flow_maps, glue, mean_flows, teachers
from losses import mean_flow, pairs
from losses.types import Loss
from models import SongUNet, ddpmpp
from train import Batch, Context, Experiment, Params, averages, schedules


def get_config() -> ConfigDict:
    """The values of the authors' second code."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",  # a model to start from, which the paper does not do
            "sigma_data": 0.5,  # of such a model
            "batch_size": 1024,
            "steps": 800_000,
            "dropout": 0.2,
            # times and weight
            "mean": -0.6,
            "std": 1.6,
            "mean_s": -4.0,
            "std_s": 1.6,
            "jump_share": 0.75,
            "power": 0.75,
            "power_c": 1e-3,
            # optimizer
            "learning_rate": 6e-4,
            "warmup_steps": 200 * 50_000 // 1024,
            "average_decay": 0.99995,
            "step_counts": (1, 2, 4),
        }
    )
    return config


def network(config: ConfigDict) -> SongUNet:
    """DDPM++ with the filter of NCSN++, told t and t - s."""
    return cifar10.unet(ddpmpp, config, second_time=True).clone(resample_filter=(1, 3, 3, 1))


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = cifar10.source(config)
    teacher = cifar10.teacher(config, images)
    model = teachers.built_as(teacher, network(config))
    velocity_of = teachers.velocity_of(teacher, mean_flows.itself, config.sigma_data)
    init = glue.initialiser(model, images)

    def initial() -> Params:
        return teachers.extended_start(model, images, init(jax.random.key(config.seed)), teacher.params())

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        return mean_flow(
            mean_flows.mean_velocity(model, params, key_dropout, velocity_of),
            batch["image"],
            key_loss,
            y=batch.get("label"),
            pairs=partial(
                pairs.capped_logit_normal, mean=config.mean, std=config.std, mean_s=config.mean_s, std_s=config.std_s
            ),
            jump_share=config.jump_share,
            p=config.power,
            c=config.power_c,
        )

    samplers = flow_maps.flow_map_samplers(mean_flows.flow_map_of(model, velocity_of), images.shape, config.step_counts)
    rate = schedules.warmup_constant(config.learning_rate, steps=config.warmup_steps)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        objective=objective,
        optimizer=optax.adam(rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **cifar10.fields(config, images, samplers, flip=True),
    )
