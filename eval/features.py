"""Feature extractors: plain callables from uint8 images to float32 vectors."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8

from .devices import local_mesh, on_mesh, rows_per_host, spread
from .statistics import Statistics, add_sums, batch_sums, empty

Extract = Callable[[np.ndarray], np.ndarray]
Sums = Callable[[np.ndarray], Statistics]


class Features(NamedTuple):
    """A feature extractor and the names that go into a metric and its rows.

    Attributes:
        name: part of the metric's name, as in `fd_pixels_2k`.
        extract: uint8 images [B, H, W, C] to float32 features [B, D].
        resize: how images are brought to the extractor's resolution; "none" if they are not.
            Numbers under different resizes are not comparable, so it is part of the metric's name too.
        sums: the same images to what their features sum to, where that needs no features on the host; None if it does.
        weights: sha256 of the extractor's weights; empty if it has none.
    """

    name: str
    extract: Extract
    resize: str = "none"
    sums: Sums | None = None
    weights: str = ""


def extract_pixels(images: UInt8[np.ndarray, "batch *shape"]) -> Float32[np.ndarray, "batch dim"]:
    """Pixels in [-1, 1], flattened: `x / 127.5 - 1`."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5) - np.float32(1)


pixels = Features("pixels", extract_pixels)


def in_batches(network: Callable[[Any, Array], Array], params: Any, *, batch_size: int) -> Extract:
    """Run a network over any number of images at one compiled shape, on all devices of this host.

    The last batch is padded with zeros and the padding's outputs are dropped, so a network must treat
    images independently.

    Args:
        network: `network(params, images[batch_size, H, W, C] uint8) -> [batch_size, D]`.
        params: its parameters, passed as an argument and not baked into the program.
        batch_size: images in one call, rounded up to a multiple of the devices.
    """
    run = mapped(lambda params, images: (network(params, images),), params, batch_size=batch_size)

    def extract(images: UInt8[np.ndarray, "n *shape"]) -> Float32[np.ndarray, "n dim"]:
        return np.concatenate([np.asarray(out[:count], np.float32) for (out,), count in run(images)])

    return extract


def network_features(
    names: Sequence[str],
    network: Callable[[Any, Array], Sequence[Array]],
    params: Any,
    *,
    batch_size: int,
    resize: str = "none",
    weights: str = "",
    prepare: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> tuple[Features, ...]:
    """Features of one network, which runs once over a batch of images however many of its outputs are measured.

    The outputs for the images seen last are kept on the devices. They are known by identity: an array must not be
    written to after its features were taken.

    Args:
        names: of the outputs, one `Features` each.
        network: `network(params, images[batch_size, H, W, C] uint8) -> outputs`, each [batch_size, D]. It brings the
            images to its own resolution, and sets its own precision: HIGHEST in all products.
        params: its parameters.
        batch_size: images in one call, rounded up to a multiple of the devices.
        resize: how it does so, as in `Features`.
        weights: sha256 of the file of the parameters, for rows and references.
        prepare: what is done to a batch on the host, where a resize cannot run on the device.
    """
    run = mapped(network, params, batch_size=batch_size, prepare=prepare)
    reduce = jax.jit(batch_sums)
    last: list[tuple[np.ndarray, list[tuple[Sequence[Array], int]]]] = []

    def outputs(images: np.ndarray) -> list[tuple[Sequence[Array], int]]:
        if not (last and last[0][0] is images):
            last[:] = [(images, list(run(images)))]
        return last[0][1]

    def features(i: int, name: str) -> Features:
        def extract(images: UInt8[np.ndarray, "n *shape"]) -> Float32[np.ndarray, "n dim"]:
            return np.concatenate([np.asarray(out[i][:count], np.float32) for out, count in outputs(images)])

        def sums(images: UInt8[np.ndarray, "n *shape"]) -> Statistics:
            parts = outputs(images)
            statistics = empty(parts[0][0][i].shape[1])
            for out, count in parts:
                statistics = add_sums(statistics, reduce(out[i], np.arange(len(out[i])) < count))
            return statistics

        return Features(name, extract, resize, sums, weights)

    return tuple(features(i, name) for i, name in enumerate(names))


def mapped(
    network: Callable[[Any, Array], Sequence[Array]],
    params: Any,
    *,
    batch_size: int,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda images: images,
) -> Callable[[np.ndarray], Iterator[tuple[Sequence[Array], int]]]:
    """Build images -> for each batch what a network gives, on the devices of this host, and how many rows count."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    mesh = local_mesh()
    rows = rows_per_host(batch_size, mesh)
    params = on_mesh(params, mesh)
    apply = jax.jit(network, out_shardings=spread(mesh))

    def run(images: np.ndarray) -> Iterator[tuple[Sequence[Array], int]]:
        if len(images) == 0:
            raise ValueError("no images to extract features from")
        for start in range(0, len(images), rows):
            batch = prepare(images[start : start + rows])
            padding = [(0, rows - len(batch))] + [(0, 0)] * (batch.ndim - 1)
            yield apply(params, jax.device_put(np.pad(batch, padding), spread(mesh))), len(batch)

    return run
