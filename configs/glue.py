"""What most configs bind in the same way: batches to the trainer, a network to its parameters, samplers to both.

Islands do not import each other; this file holds the joints that several configs share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

import data
import eval as evaluation
import train
from losses import Path
from losses.types import Net, Weight
from models import MLP, DiT, SongUNet, UViT
from models.adm import ADMUNet
from models.edm2 import EDM2UNet
from models.log_variance import LogVariance
from models.remat import REMATS, Remat
from samplers import multistep_consistency, sample_keys
from samplers.grids import explicit
from samplers.noise import initial
from samplers.types import Noise

Backbone = ADMUNet | DiT | EDM2UNet | MLP | SongUNet | UViT

NetOf = Callable[[train.Params, jax.Array | None], Net]
"""(params, labels or None) -> the network as it is sampled"""


# ---- Networks --------------------------------------------------------------------------------------------------------


def initialiser(model: Backbone, source: data.Source) -> Callable[[jax.Array], train.Params]:
    """key -> parameters of an image network for the examples of a source."""
    x, t = jnp.zeros((1, *source.shape)), jnp.zeros(1)
    labels = jnp.zeros(1, jnp.int32) if model.num_classes else None
    s = jnp.zeros(1) if model.second_time else None
    w = jnp.ones(1) if model.guided else None
    return lambda key: model.init(key, x, t, labels, s=s, w=w)["params"]


def weighted_initialiser(model: Backbone, source: data.Source) -> Callable[[jax.Array], train.Params]:
    """key -> {"network", "log_variance"}, for a loss that learns the weight of each noise level."""
    network = initialiser(model, source)

    def init(key: jax.Array) -> train.Params:
        key_network, key_weight = jax.random.split(key)
        return {
            "network": network(key_network),
            "log_variance": LogVariance().init(key_weight, jnp.zeros(1))["params"],
        }

    return init


def log_weight(params: train.Params) -> Weight:
    """The learned w of these parameters, by the noise level as the network sees it; 0 at first."""
    return lambda t: -cast(jax.Array, LogVariance().apply({"params": params["log_variance"]}, t))


def bind(
    model: Backbone,
    params: train.Params,
    labels: jax.Array | None,
    dropout: jax.Array | None = None,
    w: jax.Array | float | None = None,
    s: jax.Array | None = None,
) -> Net:
    """The network as a function of (x, t); with a dropout key it trains, under the same mask in every call.

    An unconditional network is not shown the labels. A guided one needs its scale w, one number or one per example, and
    one with a second time needs s, one per example, as the network shall see it.
    """
    labels = labels if model.num_classes else None
    training: dict[str, Any] = {} if dropout is None else {"train": True, "rngs": {"dropout": dropout}}

    def net(x: jax.Array, t: jax.Array) -> jax.Array:
        scales = None if w is None else jnp.broadcast_to(w, t.shape)
        return cast(jax.Array, model.apply({"params": params}, x, t, labels, s=s, w=scales, **training))

    return net


def remat(name: str) -> Remat:
    """What the backward pass computes again, by its name in a config.

    Raises:
        ValueError: naming those that there are.
    """
    if name not in REMATS:
        raise ValueError(f"remat is {name!r}, it must be one of {', '.join(REMATS)}")
    return REMATS[name]


# ---- Data ------------------------------------------------------------------------------------------------------------


def image_data(
    source: data.Source,
    *,
    seed: int,
    batch_size: int,
    flip: bool = False,
    num_classes: int | None = None,
    in_memory: bool = False,
    num_processes: int = 0,
) -> dict[str, Any]:
    """The fields of an Experiment that say what it is trained on; the first batch of every start is checked.

    Args:
        source: where the examples come from; but for its fingerprint it is read when training starts.
        seed: order of the examples.
        batch_size: of the global batch.
        flip: whether images are mirrored at random.
        num_classes: 0 for an unconditional model of data that have labels; the source's by default.
        in_memory: read the whole source into memory before the first batch.
        num_processes: that read ahead, of `data.batches`.
    """
    classes = source.num_classes if num_classes is None else num_classes

    def batches(start_step: int, rows: Sequence[int] | None = None) -> Iterator[train.Batch]:
        if isinstance(source, data.AbsentSource):
            source[0]  # says what to prepare
        held = data.cached(source) if in_memory else source
        iterator = data.batches(
            held, seed=seed, batch_size=batch_size, start_step=start_step, rows=rows, num_processes=num_processes
        )
        first = next(iterator)
        data.check_batch(first, shape=source.shape, num_classes=classes)
        yield first
        yield from iterator

    def prepare(key: jax.Array, batch: train.Batch) -> train.Batch:
        image = data.horizontal_flip(key, batch["image"]) if flip else batch["image"]
        labels = {"label": batch["label"]} if classes else {}
        return {"image": data.to_model_range(image), **labels}

    like = {"image": jax.ShapeDtypeStruct((batch_size, *source.shape), jnp.uint8)}
    if source.num_classes:
        like["label"] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return {
        "batches": batches,
        "batch_like": like,
        "fingerprint": data.fingerprint(source, seed=seed, batch_size=batch_size),
        "prepare": prepare,
        "batch_size": batch_size,
        "seed": seed,
        "num_classes": classes,
    }


# ---- Samplers --------------------------------------------------------------------------------------------------------


def consistency_samplers(
    net_of: NetOf,
    shape: Sequence[int],
    grids: Sequence[Sequence[float]],
    *,
    path: Path,
    sigma_min: float = 0.0,
    calls: int = 1,
    noise_of: Callable[[train.Params, jax.Array | None], Noise] | None = None,
) -> tuple[train.Sampler, ...]:
    """Multistep consistency sampling, once for each grid of times; a guided network takes two calls a step.

    `noise_of` makes the noise of these parameters and labels, where that is learned.
    """

    def sample(times: np.ndarray, params: train.Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        x = path.sigma(jnp.float32(times[0])) * initial(keys, tuple(shape))
        noise = noise_of and noise_of(params, labels)
        return multistep_consistency(
            net_of(params, labels), x, times, keys, path=path, sigma_min=sigma_min, noise=noise
        )

    return tuple(
        train.Sampler(
            "consistency " + ", ".join(f"{t:.4g}" for t in grid), calls * len(grid), partial(sample, explicit(*grid))
        )
        for grid in grids
    )


def guided_consistency_samplers(
    net_of: Callable[[float], NetOf],
    shape: Sequence[int],
    grids_and_scales: Iterable[tuple[Sequence[float], float]],
    *,
    path: Path,
) -> tuple[train.Sampler, ...]:
    """The same for a network that takes a guidance scale, which costs no second call and stands in the name."""
    return tuple(
        sampler._replace(name=f"{sampler.name}, guidance {w:g}")
        for grid, w in grids_and_scales
        for sampler in consistency_samplers(net_of(w), shape, (grid,), path=path)
    )


Solver = Callable[[Net, jax.Array, np.ndarray], jax.Array]
"""(net, x, times) -> x, as samplers.euler and samplers.heun"""


def ode_sampler(
    name: str, solver: Solver, nfe: int, net_of: NetOf, shape: Sequence[int], times: np.ndarray, *, path: Path
) -> train.Sampler:
    """A deterministic solver on a grid of times, from noise of the path's own level at the first of them."""

    def sample(params: train.Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        x = path.sigma(jnp.float32(times[0])) * initial(keys, tuple(shape))
        return solver(net_of(params, labels), x, times)

    return train.Sampler(name, nfe, sample)


def grids_of_samples(
    sampler: train.Sampler, *, every: int, average: str, num_classes: int, columns: int = 10, seed: int = 0
) -> train.Periodic:
    """A picture of the same samples, by seed and label, every so many steps: workdir/grids/STEP.png."""
    rows = num_classes or columns
    labels = jnp.repeat(jnp.arange(rows), columns)
    keys = sample_keys(seed, jnp.arange(rows * columns))
    sample = jax.jit(lambda params: sampler.sample(params, keys, labels))

    def run(workdir: FilePath, step: int, params: dict[str, train.Params]) -> dict[str, float]:
        images = evaluation.to_uint8(evaluation.whole(sample(params[average])))
        if train.is_first():
            folder = workdir / "grids"
            folder.mkdir(exist_ok=True)
            evaluation.grid(images, rows, columns).save(folder / f"{step:07d}.png")
        return {}

    return train.Periodic(every, run, name="the picture of samples")
