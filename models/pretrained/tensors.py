"""Tensors of a foreign file in the places of our parameters, once all are known to be there and to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Tensors: TypeAlias = Mapping[str, np.ndarray]
"""What a file holds: {name: tensor}, in PyTorch's order of axes."""

Place: TypeAlias = tuple[str, ...]
"""Where a parameter lies in a tree of dictionaries: `("encoder", "conv_in", "kernel")`."""


def shapes_of(init: Callable[..., Any], *inputs: Any) -> dict[Place, tuple[int, ...]]:
    """Places and shapes of what a network's `init` makes for these inputs; nothing is computed."""
    tree = jax.eval_shape(init, jax.random.key(0), *inputs)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(part.key for part in path): leaf.shape for path, leaf in leaves}


def placed(
    tensors: Tensors,
    shapes: Mapping[Place, tuple[int, ...]],
    names_of: Callable[[Place], Sequence[str]],
    *,
    what: str,
    unused: Callable[[str], bool] = lambda name: False,
) -> dict[str, Any]:
    """Parameters from the tensors of a file, in float32, as a tree of dictionaries.

    Kernels change their axes: PyTorch counts outputs and inputs first, we count them last, in the other order.

    Args:
        tensors: what the file holds.
        shapes: of the parameters, by place.
        names_of: place -> the names that the file has for it; several are joined along outputs, as q, k and v are; none
            leaves the place empty.
        what: the network, for errors.
        unused: names that the file may have besides.

    Raises:
        ValueError: tensors are missing, left over, of another shape or not finite; all of them are listed.
    """
    names = {place: tuple(names_of(place)) for place in shapes}
    stored = {name: _stored(place, shapes[place], len(several)) for place, several in names.items() for name in several}
    faults = [f"{name} is missing" for name in stored if name not in tensors]
    faults += [f"{name} is not a tensor of it" for name in tensors if name not in stored and not unused(name)]
    faults += [fault for name in stored if name in tensors and (fault := _fault(name, tensors[name], stored[name]))]
    if faults:
        raise ValueError(f"not the weights of {what}:\n" + "\n".join(faults))

    params: dict[str, Any] = {}
    for place, several in names.items():
        if not several:
            continue
        pieces = [tensors[name].reshape(stored[name]) for name in several]
        if place[-1] == "kernel":
            pieces = [np.moveaxis(piece, (0, 1), (-1, -2)) for piece in pieces]
        layer = params
        for key in place[:-1]:
            layer = layer.setdefault(key, {})
        layer[place[-1]] = jnp.asarray(np.concatenate(pieces, axis=-1), jnp.float32)
    return params


def _stored(place: Place, shape: tuple[int, ...], pieces: int) -> tuple[int, ...]:
    """The shape that a file has for each of the pieces of a parameter."""
    *rest, outputs = shape
    if place[-1] != "kernel":
        return (*rest, outputs // pieces)
    *window, inputs = rest
    return (outputs // pieces, inputs, *window)


def _fault(name: str, tensor: np.ndarray, stored: tuple[int, ...]) -> str | None:
    # Where the numbers of axes differ, a linear layer may be a convolution of one pixel, and a vector may be a batch.
    if tensor.shape != stored and (tensor.ndim == len(stored) or _without_ones(tensor.shape) != _without_ones(stored)):
        return f"{name} has shape {tensor.shape}, expected {stored}"
    if not jnp.issubdtype(tensor.dtype, jnp.floating) or not np.isfinite(tensor.astype(np.float32)).all():
        return f"{name} holds something else than finite floating-point numbers ({tensor.dtype})"
    return None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
