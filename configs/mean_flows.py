"""What the runs share that learn a mean velocity: how the network is told its times, guidance, samplers.

Not a run.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import eval as evaluation
import train
from configs import glue, guiding
from losses import conversions, guided_velocity, mean_flow
from losses.mean_flow import LabelledVelocity, Target, which_jump
from losses.types import FlowMap, Loss, Net, Pairs
from train import Params

VelocityOf = Callable[[Net], Net]
"""(what a network outputs) -> velocity on the straight path"""


def itself(F: Net) -> Net:
    """A velocity as it is."""
    return F


def mean_velocity(
    model: glue.Backbone, params: Params, dropout: jax.Array | None = None, velocity_of: VelocityOf = itself
) -> LabelledVelocity:
    """u(x_t, t, s, labels) of a network whose second time is t - s."""
    return lambda x_t, t, s, y: velocity_of(glue.bind(model, params, y, dropout, s=t - s))(x_t, t)


def objective_of(
    config: ConfigDict, u: LabelledVelocity, batch: train.Batch, key: jax.Array, pairs: Pairs, *, num_classes: int
) -> Loss:
    """MeanFlow's loss with the guidance and the label dropout of the config."""
    key_loss, key_labels = jax.random.split(key)
    y, target = batch.get("label"), None
    if guided(config):
        y = drop_labels(key_labels, y, config, num_classes)
        target = guided_target(config, u, num_classes)
    return mean_flow(
        u, batch["image"], key_loss,
        y=y, pairs=pairs, jump_share=config.jump_share, target=target, p=config.power, c=config.power_c,
    )  # fmt: skip


def guided(config: ConfigDict) -> bool:
    """Whether the target of this run is another than the velocity."""
    return config.omega != 1 or config.kappa != 0


def check_guidance(config: ConfigDict) -> None:
    """That the null class is shown, where the target is made with it.

    Raises:
        ValueError: it is never shown.
    """
    if config.omega + config.kappa != 1:
        guiding.check_null_class(config, config.omega / (1 - config.kappa) if config.kappa < 1 else math.inf)


def guided_target(config: ConfigDict, u: LabelledVelocity, num_classes: int) -> Target:
    """The guided velocity of these values; the null class is `num_classes`."""
    low, high = config.guided_times
    return partial(guided_velocity, u=u, null=num_classes, omega=config.omega, kappa=config.kappa, interval=(low, high))


def drop_labels(key: jax.Array, labels: jax.Array | None, config: ConfigDict, num_classes: int) -> jax.Array:
    """Labels of which `config.label_dropout` are null: of all, or with drop_jumps=False of those with s = t alone.

    The paper's code has the latter, since both are rows counted from the start of a batch. Its null class is never
    trained to jump, and need not be: guidance asks for it where s = t.

    Raises:
        ValueError: without labels.
    """
    if labels is None:
        raise ValueError(f"guidance needs a class-conditional network, got {config.omega=}, {config.kappa=}")
    rate = config.label_dropout if config.drop_jumps else config.label_dropout / (1 - config.jump_share)
    dropped = jax.random.bernoulli(key, rate, labels.shape)
    if not config.drop_jumps:
        dropped &= ~which_jump(len(labels), config.jump_share)
    return jnp.where(dropped, num_classes, labels)


def flow_map_of(
    model: glue.Backbone, velocity_of: VelocityOf = itself
) -> Callable[[Params, jax.Array | None], FlowMap]:
    """(params, labels) -> x_t - (t - s) u(x_t, t, s)."""

    def of(params: Params, labels: jax.Array | None) -> FlowMap:
        u = mean_velocity(model, params, velocity_of=velocity_of)
        return conversions.average_velocity_to_flow_map(lambda x_t, t, s: u(x_t, t, s, labels))

    return of


def trained(workdir: str) -> Any:
    """The weights that a run is judged with, for another one to start from."""
    experiment = evaluation.load_experiment(workdir)
    return experiment.restore(Path(workdir), experiment.judged_average, None)[0]
