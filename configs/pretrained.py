"""Converted checkpoints as runs: what those of every kind have in common.

Not a run. `python -m models.pretrained FILE --out DIR` writes DIR, whose run.json names the config of its kind and has
the settings of the network. `main.py --workdir DIR --mode=sample` and `--mode=eval` take it as they take a trained run;
the values in run.json that are not `family` or `settings` can be edited there.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import glue
from losses.types import Net
from models.pretrained import FAMILIES
from train import Params

NETWORK = "network"  # of parameters that have more beside it


class Published(NamedTuple):
    """A converted checkpoint, whole: what `main.py` needs to sample and to judge it."""

    samplers: tuple[train.Sampler, ...]
    num_classes: int
    judge: Callable[[Iterable[Any]], list[evaluation.Row]]
    judged_samples: int
    judged_average: str = "params"
    restore: Callable[[Path, str, int | None], tuple[Params, int]] = train.restore_average


def published(config: ConfigDict, samplers: tuple[train.Sampler, ...]) -> Published:
    """What these samplers of a network make."""
    return Published(samplers, config.settings.num_classes, judge(config), config.judged_samples)


def network(config: ConfigDict) -> Any:
    """The module, as `glue.bind` takes it."""
    return FAMILIES[config.family].network(config.settings.to_dict())


def params_of(params: Params) -> Params:
    """The network's own parameters, of those that have a weight of the noise level beside them."""
    return params.get(NETWORK, params)


def judge(config: ConfigDict) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge in pixels against config.images, a folder or an npz file; without them say how else it is done."""
    if config.images:
        path = Path(config.images)
        source = data.npz(path) if path.suffix == ".npz" else data.folder(path, size=config.settings.shape[0])
        return glue.pixel_judge(source)

    def refuse(batches: Iterable[Any]) -> list[evaluation.Row]:
        raise ValueError(
            "this network came without images to compare with: give `images` in its run.json, a folder or an npz file, "
            "or draw samples with --mode=sample and compare them with `python -m eval.fid SAMPLES IMAGES`"
        )

    return refuse


def guided(
    net_of: Callable[[jax.Array | None], Net],
    labels: jax.Array | None,
    config: ConfigDict,
    *,
    channels: int | None = None,
) -> Net:
    """The network guided against its null class by config.guidance, in the first so many channels, or in all.

    Raises:
        ValueError: guidance of a network without classes.
    """
    net = net_of(labels)
    if config.guidance == 1:
        return net
    if labels is None or not config.settings.num_classes:
        raise ValueError(f"guidance {config.guidance} needs a class-conditional network")
    reference = net_of(jnp.full_like(labels, config.settings.num_classes))

    def of(x: jax.Array, t: jax.Array) -> jax.Array:
        better, worse = net(x, t), reference(x, t)
        here = np.arange(x.shape[-1]) < (x.shape[-1] if channels is None else channels)
        return better + jnp.where(here, config.guidance - 1.0, 0.0) * (better - worse)

    return of
