"""What a run says of the diffusion model or the flow that it trains, to those that follow it or go on from it.

Not a run. A config says it by its `diffusion(config)` or its `flow(config)`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

import data
import train
from configs import forms, glue
from losses import Path, conversions
from losses.types import Net


class Diffusion(NamedTuple):
    """What a config that trains a diffusion model says to those that distil or tune it, by its `diffusion(config)`.

    Attributes:
        on_path: (params, labels, path) -> its denoiser read on that path.
        form: what its network outputs, which a student takes with its weights.
        shape: of its examples.
        num_classes: 0 if it is unconditional.
        sigma_data: standard deviation its preconditioning assumes; None if that is whatever a student assumes.
        average: the weights to take.
        guidable: whether it was trained with the null class too.
        network: parameters of the run -> those of its network, which is what `on_path` and students take.
        images: () -> the images it was trained on, where it can say; pairs of real images are made of them.
        built: how its network is built where its weights do not say it, by `built_of`; a student is built so, too.
    """

    on_path: Callable[[train.Params, jax.Array | None, Path], Net]
    form: forms.Form
    shape: tuple[int, ...]
    num_classes: int
    sigma_data: float | None
    average: str
    guidable: bool = False
    network: Callable[[train.Params], train.Params] = lambda params: params
    images: Callable[[], data.Source] | None = None
    built: Mapping[str, Any] = {}  # never changed


class Flow(NamedTuple):
    """What a config that trains a velocity on the straight path says to those that go on from it, by `flow(config)`.

    Attributes:
        velocity: (network's params, labels) -> v(x_t, t) on `losses.linear`, t = 1 noise.
        velocity_of: what its network outputs -> v(x_t, t).
        shape: of its examples.
        num_classes: 0 if it is unconditional.
        average: the weights to take.
        images: () -> the images it was trained on, where it can say; pairs of real images are made of them.
        network: parameters of the run -> those of its network, which is what `velocity` and students take.
        values: what its network is built with, if its config does not say it under our names.
        guidable: whether it was trained with the null class too.
        built: how its network is built where its weights do not say it, by `built_of`.
    """

    velocity: glue.NetOf
    velocity_of: Callable[[Net], Net]
    shape: tuple[int, ...]
    num_classes: int
    average: str
    images: Callable[[], data.Source] | None = None
    network: Callable[[train.Params], train.Params] = lambda params: params
    values: Mapping[str, Any] | None = None
    guidable: bool = False
    built: Mapping[str, Any] = {}  # never changed


def of_flow(flow: Flow) -> Diffusion:
    """A flow as the diffusion model that it is: its velocity on the straight path says where the data are."""

    def on_path(params: train.Params, labels: jax.Array | None, path: Path) -> Net:
        return conversions.linear_velocity_to_denoiser(flow.velocity(params, labels), path)

    return Diffusion(
        on_path,
        forms.of_velocity(flow.velocity_of),
        flow.shape,
        flow.num_classes,
        None,
        flow.average,
        flow.guidable,
        flow.network,
        flow.images,
        flow.built,
    )


def built_of(model: Any) -> dict[str, Any]:
    """What decides, beside its weights, which function a network is: embeddings, norms, filters, heads."""
    names = ("noise_embedding", "time_scale", "norm", "double_norm", "resample_filter", "channels_per_head", "heads")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
