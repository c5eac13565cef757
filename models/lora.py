"""Low-rank adapters: what is added to a network's kernels, trained in their place (Hu et al. 2021).

Adapters are parameters beside the network's and know nothing of the module: `adapted` gives ordinary parameters, for
any network here. So to merge is to keep its result, and to combine is to call it once more.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

Params: TypeAlias = Any
Adapters: TypeAlias = dict[str, dict[str, Array]]
"""{"block/linear/kernel": {"down": [*window, in, rank], "up": [rank, out]}}; stacked kernels stack both."""


def is_kernel(path: str, leaf: Array) -> bool:
    """Whether a leaf is the kernel of a linear layer or a convolution, alone or stacked by a scan."""
    return path.rsplit("/", 1)[-1] == "kernel" and leaf.ndim >= 2


def lora(key: Array, params: Params, rank: int, *, select: Callable[[str, Array], bool] = is_kernel) -> Adapters:
    """Adapters of the selected leaves that change nothing yet: "down" is normal with variance 1 / fan-in, "up" is zero.

    A kernel of 2 axes is [in, out] and one of 4 a convolution's [height, width, in, out]; one axis more in front is
    that of a scan over layers, each of which gets adapters of its own.

    Args:
        key: Draws "down".
        params: The network's; arrays or their shapes.
        rank: Columns of "down", rows of "up".
        select: (path as "block/linear/kernel", leaf) -> whether it gets an adapter.

    Raises:
        ValueError: if the rank is not positive, nothing is selected, or what is selected is no kernel.
    """
    if rank < 1:
        raise ValueError(f"the rank of adapters must be at least 1, got {rank}")
    selected = {path: leaf.shape for path, leaf in _by_path(params).items() if select(path, leaf)}
    if not selected:
        raise ValueError("no leaf was selected for an adapter")
    adapters = {}
    for key_leaf, (path, shape) in zip(jax.random.split(key, len(selected)), selected.items(), strict=True):
        if len(shape) not in (2, 3, 4, 5):
            raise ValueError(f"{path} of shape {shape} is no kernel of a linear layer or a convolution")
        stack, (*window, inputs, outputs) = shape[: len(shape) % 2], shape[len(shape) % 2 :]
        deviation = 1.0 / math.sqrt(math.prod(window) * inputs)
        adapters[path] = {
            "down": deviation * jax.random.normal(key_leaf, (*stack, *window, inputs, rank)),
            "up": jnp.zeros((*stack, rank, outputs)),
        }
    return adapters


def adapted(params: Params, adapters: Adapters, *, scale: Array | float = 1.0) -> Params:
    """The parameters with scale * down @ up added where there are adapters; in float32, in the leaf's dtype after.

    Args:
        params: The network's.
        adapters: By `lora`, of this network.
        scale: Their strength; alpha / rank where a paper has an alpha, 1 in LCM-LoRA.

    Raises:
        ValueError: if an adapter is of no leaf, or of one of another shape.
    """
    leaves = _by_path(params)
    for path in adapters:
        if path not in leaves:
            closest = difflib.get_close_matches(path, leaves, n=1, cutoff=0.0)
            raise ValueError(f"there is an adapter of {path}, which the network does not have; closest: {closest[0]}")
    changes = {path: _product(**factors) for path, factors in adapters.items()}
    for path, change in changes.items():
        if change.shape != leaves[path].shape:
            raise ValueError(f"{path} has shape {leaves[path].shape}, its adapter makes {change.shape}")

    def add(key_path: Any, leaf: Array) -> Array:
        path = _name(key_path)
        return (leaf + scale * changes[path]).astype(leaf.dtype) if path in changes else leaf

    return jax.tree_util.tree_map_with_path(add, params)


def _product(down: Array, up: Array) -> Array:
    """down @ up, the window and the stack being axes that they share or that "up" lacks."""
    window = down.ndim - up.ndim
    stack = up.shape[:-2]
    return down @ up.reshape(*stack, *(1,) * window, *up.shape[-2:])


def _by_path(params: Params) -> dict[str, Array]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _name(key_path: Any) -> str:
    return jax.tree_util.keystr(key_path, simple=True, separator="/")
