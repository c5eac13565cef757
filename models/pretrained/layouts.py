"""How tensors of PyTorch become parameters here, and back, and the check that a file has all those of a network.

PyTorch counts outputs first, Flax last; every family packs q, k and v in an order of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Place: TypeAlias = tuple[str, ...]
"""The names that lead to a parameter in our tree"""

Tensors: TypeAlias = Mapping[str, np.ndarray]

LISTED = 30  # faults in one error


class Layout(NamedTuple):
    """One order of axes for another, both ways."""

    ours: Callable[[np.ndarray], np.ndarray]  # of the file -> our
    stored: Callable[[np.ndarray], np.ndarray]  # our -> of the file


class Stored(NamedTuple):
    """How a file has one of our parameters.

    Attributes:
        name: of the tensor; with `copies` it has {} for the number of the layer.
        layout: of its axes, of one layer.
        copies: layers that lie stacked on a leading axis here and one by one in the file; 0 for a parameter of its own.
    """

    name: str
    layout: Layout
    copies: int = 0

    def names(self) -> list[str]:
        """The tensors that the parameter is made of."""
        return [self.name.format(i) for i in range(self.copies)] if self.copies else [self.name]


StoredAt: TypeAlias = Callable[[Place, tuple[int, ...]], Stored]
"""(place, our shape) -> how a family has that parameter"""


# ---- Layouts ---------------------------------------------------------------------------------------------------------

same = Layout(lambda a: a, lambda a: a)
linear = Layout(lambda a: a.T, lambda a: a.T)
convolution = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))


def flat(ones: int) -> Layout:
    """A convolution over 1 pixel, with so many axes of it, for a linear layer; or a vector, of no axes."""
    return Layout(lambda a: a.reshape(a.shape[: a.ndim - ones]).T, lambda a: a.T.reshape(a.shape[::-1] + (1,) * ones))


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


# ---- All tensors of a file, and all parameters of a network ----------------------------------------------------------


def shapes_of(module: nn.Module, *inputs: tuple[int, ...], labels: bool = False, second_time: bool = False) -> Any:
    """The shapes of a network's parameters, by inputs of these shapes; nothing is computed."""
    given = [jnp.zeros(shape) for shape in inputs] + [jnp.zeros(1, jnp.int32)] * labels
    told: dict[str, Any] = {"s": jnp.zeros(1)} if second_time else {}
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *given, **told)["params"])


def places(tree: Any) -> dict[Place, tuple[int, ...]]:
    """{place: shape} of a tree of dicts."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(part.key for part in path): tuple(leaf.shape) for path, leaf in leaves}


def params_of(
    shapes: Any, tensors: Tensors, stored_at: StoredAt, constants: Tensors, what: str, *, within: float = 0.0
) -> Any:
    """Our parameters, float32, from the tensors of a file.

    Args:
        shapes: of our parameters.
        tensors: of the file.
        stored_at: where it has each parameter.
        constants: further tensors that it should have, each with the value that our network has in it.
        what: the network, for the error.
        within: how far constants may be from that, besides rounding.

    Raises:
        ValueError: listing tensors that are missing, left over, of another shape, not of finite numbers, or constants
            of another value.
    """
    found = {place: stored_at(place, shape) for place, shape in places(shapes).items()}
    expected: dict[str, tuple[int, ...]] = {}
    for place, shape in places(shapes).items():
        of_one = np.broadcast_to(np.float32(0), shape[1:] if found[place].copies else shape)
        expected.update(dict.fromkeys(found[place].names(), found[place].layout.stored(of_one).shape))
    faults = [f"{name} is missing" for name in (*expected, *constants) if name not in tensors]
    faults += [f"{name} is not a tensor of this network" for name in tensors if name not in {*expected, *constants}]
    for name, shape in expected.items():
        if name in tensors and tensors[name].shape != shape:
            faults.append(f"{name} has shape {tensors[name].shape}, expected {shape}")
        elif name in tensors and not is_finite(tensors[name]):
            faults.append(f"{name} holds something else than finite numbers ({tensors[name].dtype})")
    for name, value in constants.items():
        if name in tensors and not close(tensors[name], value, within):
            faults.append(f"{name} is a constant with another value than this network has in it")
    refuse(faults, f"these are not the tensors of {what}")

    params: dict[str, Any] = {}
    for place, (_, layout, copies) in found.items():
        parts = [layout.ours(np.asarray(tensors[name], np.float32)) for name in found[place].names()]
        layer = params
        for key in place[:-1]:
            layer = layer.setdefault(key, {})
        layer[place[-1]] = jnp.asarray(np.stack(parts) if copies else parts[0])
    return params


def tensors_of(params: Any, stored_at: StoredAt) -> dict[str, np.ndarray]:
    """The tensors of a file from our parameters, the way back."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        stored = stored_at(tuple(part.key for part in path), tuple(leaf.shape))
        parts = list(np.asarray(leaf)) if stored.copies else [np.asarray(leaf)]
        for name, part in zip(stored.names(), parts, strict=True):
            tensors[name] = np.asarray(stored.layout.stored(part), order="C")
    return tensors


def is_finite(array: np.ndarray) -> bool:
    """Whether an array is of floating point numbers, all of them finite."""
    return jnp.issubdtype(array.dtype, jnp.floating) and bool(np.isfinite(array.astype(np.float32)).all())


def close(array: np.ndarray, value: np.ndarray, within: float) -> bool:
    """Whether an array of a file is what we have, but for its rounding and a distance."""
    if array.shape != value.shape or not is_finite(array):
        return False
    rounding = 4 * float(jnp.finfo(array.dtype).eps)
    return bool(np.allclose(array.astype(np.float64), value, rtol=rounding, atol=rounding + within))


def refuse(faults: list[str], what: str) -> None:
    """Raise a ValueError that lists what is wrong, if anything is."""
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise ValueError(f"{what}:\n" + "\n".join([*faults[:LISTED], *more]))


def numbers(array: np.ndarray) -> tuple[float, ...]:
    """A vector as plain numbers, which can be written as JSON without loss."""
    return tuple(float(number) for number in array.astype(np.float64))


def box(taps: tuple[int, ...]) -> np.ndarray:
    """NVIDIA's buffer of a separable filter."""
    return (np.outer(taps, taps) / math.pow(sum(taps), 2))[None, None]
