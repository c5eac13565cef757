"""Guidance by the null class or by a weaker network, and the values of a config that ask for it.

Not a run. A null class that was never shown is a row of random numbers, which no guidance may be made with.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import train
from configs import glue
from losses.types import Net
from models import guide


def check_null_class(config: ConfigDict, *scales: float) -> None:
    """That a run guided by these scales, of which 1 is none, shows its network the null class.

    A run that starts from another network may have that one's null class.

    Raises:
        ValueError: it is never shown; or label_dropout is no share.
    """
    if not 0 <= config.label_dropout < 1:
        raise ValueError(f"label_dropout is {config.label_dropout}, a share of the labels from 0 to below 1")
    starts = config.get("teacher_run") or config.get("start_run")
    if config.label_dropout == 0 and not starts and any(scale != 1 for scale in scales):
        guided = ", ".join(f"{scale:g}" for scale in scales if scale != 1)
        raise ValueError(
            f"guidance {guided} needs the null class, which is never shown with label_dropout 0: give"
            " --config.label_dropout=0.1, or take guidance 1"
        )


def scales(config: ConfigDict) -> tuple[float, float]:
    """The smallest and the largest scale that a student is trained for, config.guidance_range.

    Raises:
        ValueError: unless the first is at most the second.
    """
    low, high = config.guidance_range
    if not low <= high:
        raise ValueError(f"guidance_range is ({low:g}, {high:g}), the smaller scale comes first")
    return low, high


def drop_labels(key: jax.Array, labels: jax.Array | None, num_classes: int, rate: float) -> jax.Array | None:
    """Labels, each replaced by the null class with probability `rate`: what classifier-free guidance trains with."""
    if labels is None or rate == 0:
        return labels
    return jnp.where(jax.random.bernoulli(key, rate, labels.shape), num_classes, labels)


def classifier_free(
    net_of: Callable[[jax.Array | None], Net], labels: jax.Array | None, *, num_classes: int, scale: float | jax.Array
) -> Net:
    """The network guided against itself with the null class, by one scale or one per example.

    The number 1 is no guidance and costs none.
    """
    if isinstance(scale, int | float) and scale == 1:
        return net_of(labels)
    if labels is None:
        raise ValueError(f"guidance needs a class-conditional network, got scale {scale} without classes")
    return guide(net_of(labels), net_of(jnp.full_like(labels, num_classes)), scale)


def by_weaker(net_of: glue.NetOf, run: str, average: str, *, scale: float) -> glue.NetOf:
    """The network extrapolated from itself at the weights of a weaker run, such as a shorter one of the same config.

    Raises:
        FileNotFoundError: if there is no checkpoint in the folder `run`.
    """
    weaker = train.restore_average(run, average)[0]
    return lambda params, labels: guide(net_of(params, labels), net_of(weaker, labels), scale)
