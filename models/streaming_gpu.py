"""Streaming attention as Pallas kernels for NVIDIA GPUs, through Triton; `interpreted` runs the same code anywhere.

The loops are those of `streaming_chunked`. A program has one block of queries and goes through the keys; for the
gradient of keys and values it has one block of keys and goes through the queries.

Lowered for CUDA and tested interpreted, but not yet run on a GPU: no platform takes these kernels by default. Ask for
them with `partial(streaming_attention, kernels=streaming_gpu.kernels)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from .streaming_kernels import Kernels, accumulator, interpreting, logit_scale

BLOCK = 64
"""Queries and keys of a block. Triton wants powers of two, and so are the features filled up to one."""


def forward(q: Array, k: Array, v: Array, *, interpret: bool = False) -> tuple[Array, Array]:
    """(o, lse) of `Kernels`."""
    kernel = partial(_forward_kernel, keys=k.shape[1], scale=logit_scale(q.shape[-1]))
    args = [(q, "block"), (k, "whole"), (v, "whole")]
    o, lse = _call(kernel, "streaming_attention", args, [q, _rows(q)], interpret)
    return _cut(o, q), lse[..., : q.shape[1]]


def dual(
    q: Array, k: Array, v: Array, q_dot: Array, k_dot: Array, v_dot: Array, *, interpret: bool = False
) -> tuple[Array, Array, Array]:
    """(o, lse, o_dot) of `Kernels`."""
    kernel = partial(_dual_kernel, keys=k.shape[1], scale=logit_scale(q.shape[-1]))
    args = [(q, "block"), (q_dot, "block"), *((x, "whole") for x in (k, k_dot, v, v_dot))]
    o, lse, o_dot = _call(kernel, "streaming_attention_dual", args, [q, _rows(q), q], interpret)
    return _cut(o, q), lse[..., : q.shape[1]], _cut(o_dot, q)


def backward(
    q: Array, k: Array, v: Array, o: Array, lse: Array, o_bar: Array, *, interpret: bool = False
) -> tuple[Array, Array, Array]:
    """(q_bar, k_bar, v_bar) of `Kernels`: one kernel over the keys of a query, one over the queries of a key."""
    shift = jnp.einsum("bqhd,bqhd->bhq", o, o_bar, preferred_element_type=accumulator(q.dtype))
    options: dict[str, Any] = {"keys": k.shape[1], "scale": logit_scale(q.shape[-1])}
    queries, keys, name = (q, o_bar, lse, shift), (k, v), "streaming_attention_backward"

    args = [*((x, "block") for x in queries), *((x, "whole") for x in keys)]
    (q_bar,) = _call(partial(_q_bar_kernel, **options), f"{name}_q", args, [q], interpret)
    args = [*((x, "block") for x in keys), *((x, "whole") for x in queries)]
    k_bar, v_bar = _call(partial(_kv_bar_kernel, **options), f"{name}_kv", args, [k, v], interpret)
    return _cut(q_bar, q), _cut(k_bar, k), _cut(v_bar, v)


kernels = Kernels(forward, dual, backward, partitionable=False)
interpreted = interpreting(forward, dual, backward)


# ---- Kernels ---------------------------------------------------------------------------------------------------------


def _dot(a: Array, b: Array) -> Array:
    """A product of two matrices in the dtype of the second, summed in float32."""
    return jnp.dot(a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def _logits(q: Array, k: Array, block: Array | int, keys: int, scale: float) -> Array:
    position = block * BLOCK + jax.lax.broadcasted_iota(jnp.int32, (q.shape[0], k.shape[0]), 1)
    return jnp.where(position < keys, scale * _dot(q, k.T), -jnp.inf)


def _part(ref: Any, block: Array) -> Array:
    return ref[pl.ds(block * BLOCK, BLOCK), ...]


def _through(length: int, add: Callable[[Array, Any], Any], sums: Any) -> Any:
    return jax.lax.fori_loop(0, length // BLOCK, add, sums)


def _forward_kernel(q_ref, k_ref, v_ref, o_ref, lse_ref, *, keys, scale):
    q = q_ref[...]

    def add(block, sums):
        m, total, o = sums
        S = _logits(q, _part(k_ref, block), block, keys, scale)
        larger = jnp.maximum(m, S.max(-1))
        before, p = jnp.exp(m - larger), jnp.exp(S - larger[:, None])
        return larger, before * total + p.sum(-1), before[:, None] * o + _dot(p, _part(v_ref, block))

    m, total, o = _through(k_ref.shape[0], add, (_lowest(q), _row(q), _zeros(q)))
    o_ref[...] = (o / total[:, None]).astype(o_ref.dtype)
    lse_ref[...] = m + jnp.log(total)


def _dual_kernel(q_ref, q_dot_ref, k_ref, k_dot_ref, v_ref, v_dot_ref, o_ref, lse_ref, o_dot_ref, *, keys, scale):
    q, q_dot = q_ref[...], q_dot_ref[...]

    def add(block, sums):
        m, total, mu, o, g = sums
        k, v = _part(k_ref, block), _part(v_ref, block)
        S = _logits(q, k, block, keys, scale)
        S_dot = scale * (_dot(q, _part(k_dot_ref, block).T) + _dot(q_dot, k.T))
        larger = jnp.maximum(m, S.max(-1))
        before, p = jnp.exp(m - larger), jnp.exp(S - larger[:, None])
        p_S_dot = p * S_dot
        o = before[:, None] * o + _dot(p, v)
        g = before[:, None] * g + _dot(p_S_dot, v) + _dot(p, _part(v_dot_ref, block))
        return larger, before * total + p.sum(-1), before * mu + p_S_dot.sum(-1), o, g

    row, wide = _row(q), _zeros(q)
    m, total, mu, o, g = _through(k_ref.shape[0], add, (_lowest(q), row, row, wide, wide))
    o = o / total[:, None]
    o_ref[...] = o.astype(o_ref.dtype)
    lse_ref[...] = m + jnp.log(total)
    o_dot_ref[...] = (g / total[:, None] - (mu / total)[:, None] * o).astype(o_dot_ref.dtype)


def _weights(q, o_bar, lse, shift, k, v, block, keys, scale):
    """p and the cotangent of the logits."""
    p = jnp.exp(_logits(q, k, block, keys, scale) - lse[:, None])
    return p, scale * p * (_dot(o_bar, v.T) - shift[:, None])


def _q_bar_kernel(q_ref, o_bar_ref, lse_ref, shift_ref, k_ref, v_ref, q_bar_ref, *, keys, scale):
    rows = q_ref[...], o_bar_ref[...], lse_ref[...], shift_ref[...]

    def add(block, q_bar):
        k = _part(k_ref, block)
        _, S_bar = _weights(*rows, k, _part(v_ref, block), block, keys, scale)
        return q_bar + _dot(S_bar, k)

    q_bar_ref[...] = _through(k_ref.shape[0], add, _zeros(rows[0])).astype(q_bar_ref.dtype)


def _kv_bar_kernel(k_ref, v_ref, q_ref, o_bar_ref, lse_ref, shift_ref, k_bar_ref, v_bar_ref, *, keys, scale):
    k, v, here = k_ref[...], v_ref[...], pl.program_id(0)

    def add(block, bars):
        k_bar, v_bar = bars
        q, o_bar, lse, shift = (_part(ref, block) for ref in (q_ref, o_bar_ref, lse_ref, shift_ref))
        p, S_bar = _weights(q, o_bar, lse, shift, k, v, here, keys, scale)
        return k_bar + _dot(S_bar.T, q), v_bar + _dot(p.T, o_bar)

    k_bar, v_bar = _through(q_ref.shape[0], add, (_zeros(k), _zeros(v)))
    k_bar_ref[...] = k_bar.astype(k_bar_ref.dtype)
    v_bar_ref[...] = v_bar.astype(v_bar_ref.dtype)


def _zeros(x: Array) -> Array:
    return jnp.zeros(x.shape, jnp.float32)


def _row(x: Array) -> Array:
    return jnp.zeros(x.shape[:1], jnp.float32)


def _lowest(x: Array) -> Array:
    return jnp.full(x.shape[:1], -jnp.inf, jnp.float32)


# ---- How arrays are cut into blocks ----------------------------------------------------------------------------------


def _call(
    kernel: Callable[..., None],
    name: str,
    args: Sequence[tuple[Array, str]],
    outs: Sequence[Any],
    interpret: bool,
) -> Sequence[Array]:
    """Run a kernel for every block of the first argument, in every example and head."""
    first = args[0][0]
    batch, length, heads, _ = first.shape

    def spec(x: Any, size: int, step: int) -> pl.BlockSpec:
        if len(x.shape) == 3:
            return pl.BlockSpec((None, None, size), lambda i, h, b: (b, h, i * step))
        return pl.BlockSpec((None, size, None, x.shape[-1]), lambda i, h, b: (b, i * step, h, 0))

    padded = [(_fill(x), kind) for x, kind in args]
    in_specs = [spec(x, BLOCK, 1) if kind == "block" else spec(x, _length(x), 0) for x, kind in padded]
    shapes = [jax.eval_shape(_fill, out) for out in outs]
    options: dict[str, Any] = {} if interpret else {"compiler_params": triton.CompilerParams(num_warps=4, num_stages=2)}
    return pl.pallas_call(
        kernel,
        out_shape=shapes,
        grid=(-(-length // BLOCK), heads, batch),
        in_specs=in_specs,
        out_specs=[spec(shape, BLOCK, 1) for shape in shapes],
        interpret=interpret,
        name=name,
        **options,
    )(*(x for x, _ in padded))


def _rows(q: Array) -> jax.ShapeDtypeStruct:
    batch, length, heads, _ = q.shape
    return jax.ShapeDtypeStruct((batch, heads, length), accumulator(q.dtype))


def _length(x: Array) -> int:
    return x.shape[2] if x.ndim == 3 else x.shape[1]


def _fill(x: Array) -> Array:
    """Zeros up to whole blocks of positions and a power of two of features."""
    positions = -_length(x) % BLOCK
    if x.ndim == 3:
        return jnp.pad(x, ((0, 0), (0, 0), (0, positions)))
    features = max(16, pl.next_power_of_2(x.shape[-1])) - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, positions), (0, 0), (0, features)))


def _cut(x: Array, like: Array) -> Array:
    return x[:, : like.shape[1], :, : like.shape[-1]]
