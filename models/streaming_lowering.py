"""How the primitives of streaming attention are compiled, on one device and on several that share a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import Array
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, PartitionSpec

from .streaming_chunked import chunked
from .streaming_kernels import Kernels

HEADS_AXIS = "tensor"
"""The mesh axis over which heads are split where a kernel runs device by device; examples are over the others."""


def lowering(compute: Callable[..., Sequence[Array]], default: Kernels) -> Callable[..., Any]:
    """How a primitive is compiled for a platform: as `compute` of these kernels, unless others were asked for."""

    def lower(ctx: Any, *args: Any, kernels: Kernels | None) -> Any:
        chosen = kernels or default
        over = _shared_over(ctx.module_context.axis_context)
        if over is None and not chosen.partitionable:
            chosen = chunked
        here: Callable[..., Sequence[Array]] = partial(compute, kernels=chosen)
        if over and not chosen.partitionable:
            here = _on_each_device(here, over)
        return mlir.lower_fun(here, multiple_results=True)(ctx, *args)

    return lower


def _shared_over(context: Any) -> AbstractMesh | tuple[()] | None:
    """The mesh over which XLA will partition the program, () where it will not, None where the mesh is not known."""
    inside = getattr(context, "mesh", None)  # that of a shard_map around it
    if inside is not None:
        return () if set(context.manual_axes) | set(inside.manual_axes) == set(inside.axis_names) else None
    mesh = jax.sharding.get_abstract_mesh()
    return () if context.num_devices == 1 else None if mesh.empty else mesh


def _on_each_device(compute: Callable[..., Sequence[Array]], mesh: AbstractMesh) -> Callable[..., Sequence[Array]]:
    """Attention of each device's examples, and of its heads where the mesh has an axis for them."""

    def shared(*args: Array) -> Sequence[Array]:
        batch, _, heads, _ = args[0].shape
        over_heads = [axis for axis in mesh.axis_names if axis == HEADS_AXIS and heads % mesh.shape[axis] == 0]
        over_batch: list[str] = []
        for axis in mesh.axis_names:
            if axis != HEADS_AXIS and batch % math.prod(mesh.shape[name] for name in [*over_batch, axis]) == 0:
                over_batch.append(axis)
        examples, by_head = tuple(over_batch) or None, tuple(over_heads) or None

        def spec(x: Any) -> PartitionSpec:
            return PartitionSpec(examples, None, by_head) if x.ndim == 4 else PartitionSpec(examples, by_head)

        outs = jax.eval_shape(compute, *args)
        return jax.shard_map(
            compute, mesh=mesh, in_specs=tuple(map(spec, args)), out_specs=jax.tree.map(spec, outs), check_vma=False
        )(*args)

    return shared
