"""Converted checkpoints as runs: what those of every kind have in common.

Not a run. `python -m models.pretrained FILE --out DIR` writes DIR, whose run.json names the config of its kind and has
the settings of the network. `main.py --workdir DIR --mode=sample` and `--mode=eval` take it as they take a trained run;
the values in run.json that are not `family` or `settings` can be edited there.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import judges, judging, latents
from losses.types import Net
from models import guide
from models.pretrained import FAMILIES
from models.pretrained.stable_autoencoder import read_autoencoder, read_network
from train import Params

NETWORK = "network"  # of parameters that have more beside it
PIXELS = ("pixels",)
KEPT = 10_000  # real images whose features are kept, for precision and recall


class Published(NamedTuple):
    """A converted checkpoint, whole: what `main.py` needs to sample and to judge it."""

    samplers: tuple[train.Sampler, ...]
    num_classes: int
    judge: Callable[[Iterable[Any]], list[evaluation.Row]]
    judged_samples: int
    judged_average: str = "params"
    restore: Callable[[Path, str, int | None], tuple[Params, int]] = train.restore_average


def published(config: ConfigDict, samplers: tuple[train.Sampler, ...]) -> Published:
    """What these samplers of a network make: images, of latents too if there is config.autoencoder to decode them."""
    if config.get("autoencoder"):
        samplers = latents.decoded(samplers, space(config))
    return Published(samplers, config.settings.num_classes, judge(config), config.judged_samples)


def space(config: ConfigDict) -> latents.Space:
    """Where latents of this network live, by the autoencoder of diffusers in the folder config.autoencoder.

    EDM2 shows its autoencoder images in [0, 1] and scales each channel, as its files say; DiT, SiT and REPA show it
    images in [-1, 1] and multiply by 0.18215.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the autoencoder has latents of other channels than this network.
    """
    settings = config.settings
    shape, told = tuple(settings.shape), settings.get("examples", {})
    module, variables = read_autoencoder(config.autoencoder)
    if shape[-1] != module.latent_channels:
        raise ValueError(
            f"autoencoder={config.autoencoder} has latents of {module.latent_channels} channels, this network has"
            f" examples of {shape}"
        )
    if "scale" in told:  # the network sees scale z + bias
        shift = tuple(-bias / scale for scale, bias in zip(told.scale, told.bias, strict=True))
        seen = data.Scale(shift, tuple(told.scale))
    else:
        seen = data.multiplied((0.0,) * shape[-1], (1.0,) * shape[-1])
    low, high = told.get("autoencoder_range", (-1.0, 1.0))

    def decode(params: Params, z: jax.Array) -> jax.Array:
        images = module.apply(params, data.from_model_scale(z, seen), method="decode")
        return (2 * images - (low + high)) / (high - low)

    absent = data.absent("latents", shape, settings.num_classes, "a converted network comes without its data")
    return latents.Space(absent, seen, decode, variables, lambda: absent)


def network(config: ConfigDict) -> Any:
    """The module, as `glue.bind` takes it."""
    return FAMILIES[config.family].network(config.settings.to_dict())


def params_of(params: Params) -> Params:
    """The network's own parameters, of those that have a weight of the noise level beside them."""
    return params.get(NETWORK, params)


def judge(config: ConfigDict) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge against config.images, a folder or an npz file; without them say how else it is done.

    In pixels, or in config.features, such as ["inception", "inception_logits"], with the weights in the file
    config.feature_weights, or those that are fetched.
    """
    if config.images and tuple(config.get("features", PIXELS)) != PIXELS:
        in_features = cache(partial(_feature_judge, config))
        return lambda batches: in_features()(batches)
    if config.images:
        path, side = Path(config.images), image_side(config)
        return judges.pixel_judge(data.npz(path) if path.suffix == ".npz" else data.folder(path, size=side))

    def refuse(batches: Iterable[Any]) -> list[evaluation.Row]:
        raise ValueError(
            "this network came without images to compare with: give `images` in its run.json, a folder or an npz file, "
            "or draw samples with --mode=sample and compare them with `python -m eval.fid SAMPLES IMAGES`"
        )

    return refuse


def weaker(
    config: ConfigDict, net_of: Callable[[ConfigDict, Params, jax.Array | None], Net]
) -> Callable[[jax.Array | None], Net] | None:
    """The converted network in config.weaker_run, by which this one is guided; None if there is none.

    Raises:
        FileNotFoundError: nothing was converted there.
        ValueError: it is of another kind, or of other examples or classes, with both values.
    """
    if not config.get("weaker_run"):
        return None
    _, theirs = evaluation.read_run(config.weaker_run)
    for name in ("shape", "num_classes"):
        here, there = config.settings[name], theirs.settings[name]
        if here != there:
            raise ValueError(f"the weaker network in {config.weaker_run} has {name} {there}, this one {here}")
    params, _ = train.restore_average(config.weaker_run, "params")
    return lambda labels: net_of(theirs, params, labels)


def _feature_judge(config: ConfigDict) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    found, scores = judging.features(config.features, weights=config.get("feature_weights") or None)
    path = Path(config.images)

    def images() -> tuple[str, Iterable[np.ndarray]]:
        if path.suffix == ".npz":
            return str(path), evaluation.image_batches(path, 250)
        return judging.images(str(path), size=image_side(config))

    references = []
    for features in found:
        name, batches = images()
        references.append(evaluation.measure_stream(name, features, batches, keep=KEPT).reference)
    return partial(evaluation.judge, references=references, scores=scores)


def image_side(config: ConfigDict) -> int:
    """Side of the images that it makes; an autoencoder makes several pixels of one of a latent."""
    side: int = config.settings.shape[0]
    return side * 2 ** (len(read_network(config.autoencoder).multipliers) - 1) if config.get("autoencoder") else side


def calls_of(config: ConfigDict) -> int:
    """Networks that are called in one evaluation."""
    return 1 + (config.guidance != 1) + bool(config.get("weaker_run"))


def guided(
    net_of: Callable[[jax.Array | None], Net],
    labels: jax.Array | None,
    config: ConfigDict,
    *,
    channels: int | None = None,
    weaker: Callable[[jax.Array | None], Net] | None = None,
) -> Net:
    """The network guided against its null class by config.guidance, in the first so many channels, or in all.

    With a weaker network against that, too, by config.autoguidance (Karras et al. 2024b).

    Raises:
        ValueError: guidance of a network without classes.
    """
    net = net_of(labels)
    if weaker is not None:
        net = guide(net, weaker(labels), config.autoguidance)
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
