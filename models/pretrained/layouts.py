"""How a tensor of PyTorch becomes a parameter here, and back.

PyTorch counts outputs first, Flax last; every family packs q, k and v in an order of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

Place: TypeAlias = tuple[str, ...]
"""The names that lead to a parameter in our tree"""

Tensors: TypeAlias = Mapping[str, np.ndarray]


class Layout(NamedTuple):
    """One order of axes for another, both ways."""

    ours: Callable[[np.ndarray], np.ndarray]  # of the file -> our
    stored: Callable[[np.ndarray], np.ndarray]  # our -> of the file


class Stored(NamedTuple):
    """How a file has one of our parameters.

    Attributes:
        name: of the tensor; with `copies` it has {} for the number of the layer. Of several the parameter is joined
            along its outputs, as of q, k and v; none leaves its place empty.
        layout: of its axes, of one layer.
        copies: layers that lie stacked on a leading axis here and one by one in the file; 0 for a parameter of its own.
    """

    name: str | tuple[str, ...]
    layout: Layout
    copies: int = 0

    def names(self) -> list[str]:
        """The tensors that the parameter is made of."""
        if isinstance(self.name, tuple):
            return list(self.name)
        return [self.name.format(i) for i in range(self.copies)] if self.copies else [self.name]


StoredAt: TypeAlias = Callable[[Place, tuple[int, ...]], Stored]
"""(place, our shape) -> how a family has that parameter"""


# ---- Layouts ---------------------------------------------------------------------------------------------------------

same = Layout(lambda a: a, lambda a: a)
linear = Layout(lambda a: a.T, lambda a: a.T)
outputs_first = Layout(
    lambda a: np.moveaxis(a, (0, 1), (-1, -2)) if a.ndim > 1 else a, lambda a: np.moveaxis(a, (-1, -2), (0, 1))
)
convolution = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))


def flat(ones: int) -> Layout:
    """A convolution over 1 pixel, with so many axes of it, for a linear layer; or a vector, of no axes."""
    return Layout(lambda a: a.reshape(a.shape[: a.ndim - ones]).T, lambda a: a.T.reshape(a.shape[::-1] + (1,) * ones))


def first_axes_of_one(count: int) -> Layout:
    """As a batch of one, or in more such axes."""
    return Layout(lambda a: a.reshape(a.shape[count:]), lambda a: a.reshape((1,) * count + a.shape))


def qkv(order: str, heads: int, inner: Layout) -> Layout:
    """Outputs of a fused projection, in some order of head, dim and qkv in the file, and here (qkv, head, dim).

    Args:
        order: "head dim qkv" (EDM, EDM2), "head qkv dim" (guided diffusion) or "qkv head dim".
        heads: how many.
        inner: what happens to the axes otherwise.
    """
    axes = order.split()
    forth = [axes.index(axis) for axis in ("qkv", "head", "dim")]
    back = [("qkv", "head", "dim").index(axis) for axis in axes]

    def reordered(a: np.ndarray, names: list[str], permutation: list[int]) -> np.ndarray:
        sizes = {"qkv": 3, "head": heads, "dim": a.shape[0] // (3 * heads)}
        split = a.reshape(*(sizes[name] for name in names), *a.shape[1:])
        return split.transpose(*permutation, *range(3, split.ndim)).reshape(a.shape)

    return Layout(
        lambda a: inner.ours(reordered(a, axes, forth)),
        lambda a: reordered(inner.stored(a), ["qkv", "head", "dim"], back),
    )


def patches(side: int) -> Layout:
    """A convolution whose stride is its window, for a linear layer of flattened patches (row, column, channel)."""
    return Layout(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(side, side, -1, a.shape[1]).transpose(3, 2, 0, 1),
    )


def numbers(array: np.ndarray) -> tuple[float, ...]:
    """A vector as plain numbers, which can be written as JSON without loss."""
    return tuple(float(number) for number in array.astype(np.float64))


def box(taps: tuple[int, ...]) -> np.ndarray:
    """NVIDIA's buffer of a separable filter."""
    return (np.outer(taps, taps) / math.pow(sum(taps), 2))[None, None]
