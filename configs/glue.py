"""What most configs bind in the same way: batches to the trainer, samplers to a network, a judge to real data.

Configs and main.py alone join the islands; this file holds the joints that several configs share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path as FilePath
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

import data
import eval as evaluation
import train
from losses import Path
from losses.types import Net
from models import MLP, DiT, SongUNet
from samplers import multistep_consistency, sample_keys
from samplers.grids import explicit
from samplers.noise import initial

Backbone = DiT | MLP | SongUNet

NetOf = Callable[[train.Params, jax.Array | None], Net]
"""(params, labels or None) -> the network as it is sampled"""


# ---- Networks --------------------------------------------------------------------------------------------------------


def initialiser(model: Backbone, source: data.Source) -> Callable[[jax.Array], train.Params]:
    """key -> parameters of an image network for the examples of a source."""
    x, t = jnp.zeros((1, *source.shape)), jnp.zeros(1)
    labels = jnp.zeros(1, jnp.int32) if model.num_classes else None
    return lambda key: model.init(key, x, t, labels)["params"]


def bind(model: Backbone, params: train.Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
    """The network as a function of (x, t); with a dropout key it trains, under the same mask in every call.

    An unconditional network is not shown the labels.
    """
    labels = labels if model.num_classes else None
    if dropout is None:
        return lambda x, t: cast(jax.Array, model.apply({"params": params}, x, t, labels))
    rngs = {"dropout": dropout}
    return lambda x, t: cast(jax.Array, model.apply({"params": params}, x, t, labels, train=True, rngs=rngs))


# ---- Data ------------------------------------------------------------------------------------------------------------


def image_data(source: data.Source, *, seed: int, batch_size: int, flip: bool = False) -> dict[str, Any]:
    """The fields of an Experiment that say what it is trained on; the first batch of every start is checked."""

    def batches(start_step: int) -> Iterator[train.Batch]:
        iterator = data.batches(source, seed=seed, batch_size=batch_size, start_step=start_step)
        first = next(iterator)
        data.check_batch(first, shape=source.shape, num_classes=source.num_classes)
        yield first
        yield from iterator

    def prepare(key: jax.Array, batch: train.Batch) -> train.Batch:
        image = data.horizontal_flip(key, batch["image"]) if flip else batch["image"]
        return {**batch, "image": data.to_model_range(image)}

    return {
        "batches": batches,
        "fingerprint": data.fingerprint(source, seed=seed, batch_size=batch_size),
        "prepare": prepare,
        "batch_size": batch_size,
        "seed": seed,
        "num_classes": source.num_classes,
    }


# ---- Samplers --------------------------------------------------------------------------------------------------------


def consistency_samplers(
    net_of: NetOf, shape: Sequence[int], grids: Sequence[Sequence[float]], *, path: Path, sigma_min: float = 0.0
) -> tuple[train.Sampler, ...]:
    """Multistep consistency sampling, once for each grid of times."""

    def sample(times: np.ndarray, params: train.Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        x = path.sigma(jnp.float32(times[0])) * initial(keys, tuple(shape))
        return multistep_consistency(net_of(params, labels), x, times, keys, path=path, sigma_min=sigma_min)

    return tuple(
        train.Sampler("consistency " + ", ".join(f"{t:g}" for t in grid), len(grid), partial(sample, explicit(*grid)))
        for grid in grids
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
        folder = workdir / "grids"
        folder.mkdir(exist_ok=True)
        images = evaluation.to_uint8(sample(params[average]))
        evaluation.grid(images, rows, columns).save(folder / f"{step:07d}.png")
        return {}

    return train.Periodic(every, run)


# ---- Judges ----------------------------------------------------------------------------------------------------------


def pixel_judge(source: data.Source, *, limit: int = 10_000) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge in pixels against the first `limit` images of a source: a stand-in until features are at hand."""

    @cache
    def reference() -> evaluation.Reference:
        real = data.cached(source).image[:limit]
        return evaluation.make_reference(f"{source.name}[:{len(real)}]", evaluation.pixels, real)

    return lambda batches: evaluation.judge(batches, references=(reference(),))


def judge_with_classifier(
    real: data.ArraySource, *, training: data.ArraySource, held_out: data.ArraySource
) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Judge in pixels against all real images, and by a classifier trained on the training split when first needed."""
    if training.label is None or held_out.label is None:
        raise ValueError(f"a classifier needs labels; {training.name} or {held_out.name} has none")
    labels, held_out_labels = training.label, held_out.label

    @cache
    def classifier() -> evaluation.Classifier:
        return evaluation.train_classifier(
            training.image, labels, held_out.image, held_out_labels, num_classes=real.num_classes
        )

    @cache
    def reference() -> evaluation.Reference:
        return evaluation.make_reference(real.name, evaluation.pixels, real.image)

    return lambda batches: evaluation.judge(batches, references=(reference(),), classifier=classifier())
