"""Examples stay on the devices that have them, when parameters are shared out."""

from __future__ import annotations

import math

import jax
from jax import Array
from jax.sharding import PartitionSpec, get_abstract_mesh

AXES = ("data", "fsdp")
"""Axes of a mesh over which examples are spread; train/sharding.py has the same."""


def keep_examples(x: Array) -> Array:
    """The same array, whose first axis the compiler is to spread over the mesh, if one with `AXES` is in context.

    Between a layer whose outputs are shared out and examples that are, both over the same devices, the compiler has to
    choose; told nothing it often sends activations around, which are larger than the layer. Other axes stay free, and
    so does an x whose first axis the devices do not divide.
    """
    mesh = get_abstract_mesh()
    if mesh.empty or not set(AXES) <= set(mesh.axis_names):
        return x
    if x.shape[0] % math.prod(mesh.shape[axis] for axis in AXES):
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(AXES, *free))
