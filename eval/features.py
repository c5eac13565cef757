"""Feature extractors: plain callables from uint8 images to float32 vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8

Extract = Callable[[np.ndarray], np.ndarray]


class Features(NamedTuple):
    """A feature extractor and the names that go into a metric and its rows.

    Attributes:
        name: part of the metric's name, as in `fd_pixels_2k`.
        extract: uint8 images [B, H, W, C] to float32 features [B, D].
        resize: how images are brought to the extractor's resolution; "none" if they are not.
            Numbers under different resizes are not comparable.
    """

    name: str
    extract: Extract
    resize: str = "none"


def extract_pixels(images: UInt8[np.ndarray, "batch *shape"]) -> Float32[np.ndarray, "batch dim"]:
    """Pixels in [-1, 1], flattened: `x / 127.5 - 1`."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5) - np.float32(1)


pixels = Features("pixels", extract_pixels)


def in_batches(network: Callable[[Any, Array], Array], params: Any, *, batch_size: int) -> Extract:
    """Run a network over any number of images at one compiled shape.

    The last batch is padded with zeros and the padding's outputs are dropped, so a network must treat
    images independently.

    Args:
        network: `network(params, images[batch_size, H, W, C] uint8) -> [batch_size, D]`.
        params: its parameters, passed as an argument and not baked into the program.
        batch_size: images in one call.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    apply = jax.jit(network)

    def extract(images: UInt8[np.ndarray, "n *shape"]) -> Float32[np.ndarray, "n dim"]:
        if len(images) == 0:
            raise ValueError("no images to extract features from")
        outputs = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            padding = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
            outputs.append(np.asarray(apply(params, np.pad(batch, padding)), dtype=np.float32)[: len(batch)])
        return np.concatenate(outputs)

    return extract
