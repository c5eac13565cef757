"""Streaming attention as Pallas kernels for TPUs; `interpreted` runs the same code anywhere, slowly.

The loops are those of `streaming_chunked`, with a block of queries and one of keys in fast memory. Inside, arrays are
[B, H, D, L]: positions lie along the 128 lanes, so 64 features cost no padding, and what belongs to a query is a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .streaming_kernels import Kernels, accumulator, interpreting, logit_scale

LANES, BLOCK = 128, 512


def forward(q: Array, k: Array, v: Array, *, interpret: bool = False) -> tuple[Array, Array]:
    """(o, lse) of `Kernels`."""
    grid = _Grid(q, k)
    o, lse = grid.call(
        partial(_forward_kernel, keys=k.shape[1], scale=logit_scale(q.shape[-1])),
        "streaming_attention",
        [(q, "queries"), (k, "keys"), (v, "keys")],
        [(q.dtype, "queries"), (accumulator(q.dtype), "rows")],
        ["row", "row", "queries"],
        2,
        interpret,
    )
    return grid.queries_of(o), grid.rows_of(lse)


def dual(
    q: Array, k: Array, v: Array, q_dot: Array, k_dot: Array, v_dot: Array, *, interpret: bool = False
) -> tuple[Array, Array, Array]:
    """(o, lse, o_dot) of `Kernels`."""
    grid = _Grid(q, k)
    queries, keys = [(x, "queries") for x in (q, q_dot)], [(x, "keys") for x in (k, k_dot, v, v_dot)]
    o, lse, o_dot = grid.call(
        partial(_dual_kernel, keys=k.shape[1], scale=logit_scale(q.shape[-1])),
        "streaming_attention_dual",
        [*queries, *keys],
        [(q.dtype, "queries"), (accumulator(q.dtype), "rows"), (q.dtype, "queries")],
        ["row", "row", "row", "queries", "queries"],
        6,
        interpret,
    )
    return grid.queries_of(o), grid.rows_of(lse), grid.queries_of(o_dot)


def backward(
    q: Array, k: Array, v: Array, o: Array, lse: Array, o_bar: Array, *, interpret: bool = False
) -> tuple[Array, Array, Array]:
    """(q_bar, k_bar, v_bar) of `Kernels`: one kernel over the keys of a query, one over the queries of a key."""
    acc = accumulator(q.dtype)
    shift = jnp.einsum("bqhd,bqhd->bhq", o, o_bar, preferred_element_type=acc)
    args = [(q, "queries"), (o_bar, "queries"), (lse, "rows"), (shift, "rows"), (k, "keys"), (v, "keys")]
    options = {"keys": k.shape[1], "scale": logit_scale(q.shape[-1])}
    grid = _Grid(q, k)
    name = "streaming_attention_backward"
    (q_bar,) = grid.call(
        partial(_q_bar_kernel, **options), f"{name}_q", args, [(q.dtype, "queries")], ["queries"], 3, interpret
    )
    k_bar, v_bar = grid.swapped().call(
        partial(_kv_bar_kernel, **options), f"{name}_kv", args, [(k.dtype, "keys")] * 2, ["keys", "keys"], 4, interpret
    )
    return grid.queries_of(q_bar), grid.keys_of(k_bar), grid.keys_of(v_bar)


kernels = Kernels(forward, dual, backward, partitionable=False)
interpreted = interpreting(forward, dual, backward)


# ---- Kernels ---------------------------------------------------------------------------------------------------------
# S, p and their like are [keys, queries], sums are kept from one block of keys to the next in scratch memory.


def _dot(a: Array, b: Array, *, over: tuple[int, int]) -> Array:
    return jax.lax.dot_general(a, b, (((over[0],), (over[1],)), ((), ())), preferred_element_type=jnp.float32)


_features = partial(_dot, over=(0, 0))
_keys = partial(_dot, over=(1, 0))
_queries = partial(_dot, over=(1, 1))


def _logits(k: Array, q: Array, block: Array, keys: int, scale: float) -> Array:
    S = scale * _features(k, q)
    if keys % k.shape[1] == 0:
        return S
    position = block * k.shape[1] + jax.lax.broadcasted_iota(jnp.int32, S.shape, 0)
    return jnp.where(position < keys, S, -jnp.inf)


def _start(m: Any, *sums: Any) -> None:
    m[...] = jnp.full(m.shape, -jnp.inf, m.dtype)
    _clear(*sums)


def _clear(*sums: Any) -> None:
    for x in sums:
        x[...] = jnp.zeros(x.shape, x.dtype)


def _forward_kernel(q, k, v, o, lse, m, total, sums, *, keys, scale):
    block = pl.program_id(3)
    pl.when(block == 0)(lambda: _start(m, total, sums))
    S = _logits(k[...], q[...], block, keys, scale)
    larger = jnp.maximum(m[...], S.max(0, keepdims=True))
    before, p = jnp.exp(m[...] - larger), jnp.exp(S - larger)
    m[...] = larger
    total[...] = before * total[...] + p.sum(0, keepdims=True)
    sums[...] = before * sums[...] + _keys(v[...], p.astype(v.dtype))

    @pl.when(block == pl.num_programs(3) - 1)
    def finish() -> None:
        o[...] = (sums[...] / total[...]).astype(o.dtype)
        lse[...] = m[...] + jnp.log(total[...])


def _dual_kernel(q, q_dot, k, k_dot, v, v_dot, o, lse, o_dot, m, total, mu, sums, g, *, keys, scale):
    block = pl.program_id(3)
    pl.when(block == 0)(lambda: _start(m, total, mu, sums, g))
    S = _logits(k[...], q[...], block, keys, scale)
    S_dot = scale * (_features(k_dot[...], q[...]) + _features(k[...], q_dot[...]))
    larger = jnp.maximum(m[...], S.max(0, keepdims=True))
    before, p = jnp.exp(m[...] - larger), jnp.exp(S - larger)
    # In float32: rounded to bfloat16, p and S_dot would lose what cancels in the tangent.
    p_S_dot = p * S_dot
    m[...] = larger
    total[...] = before * total[...] + p.sum(0, keepdims=True)
    mu[...] = before * mu[...] + p_S_dot.sum(0, keepdims=True)
    p, p_S_dot = p.astype(v.dtype), p_S_dot.astype(v.dtype)
    sums[...] = before * sums[...] + _keys(v[...], p)
    g[...] = before * g[...] + _keys(v[...], p_S_dot) + _keys(v_dot[...], p)

    @pl.when(block == pl.num_programs(3) - 1)
    def finish() -> None:
        out = sums[...] / total[...]
        o[...] = out.astype(o.dtype)
        lse[...] = m[...] + jnp.log(total[...])
        o_dot[...] = (g[...] / total[...] - mu[...] / total[...] * out).astype(o_dot.dtype)


def _weights(q, o_bar, lse, shift, k, v, block, keys, scale):
    """p and the cotangent of the logits."""
    p = jnp.exp(_logits(k[...], q[...], block, keys, scale) - lse[...])
    return p, scale * p * (_features(v[...], o_bar[...]) - shift[...])


def _q_bar_kernel(q, o_bar, lse, shift, k, v, q_bar, sums, *, keys, scale):
    block = pl.program_id(3)
    pl.when(block == 0)(lambda: _clear(sums))
    _, S_bar = _weights(q, o_bar, lse, shift, k, v, block, keys, scale)
    sums[...] += _keys(k[...], S_bar.astype(k.dtype))

    @pl.when(block == pl.num_programs(3) - 1)
    def finish() -> None:
        q_bar[...] = sums[...].astype(q_bar.dtype)


def _kv_bar_kernel(q, o_bar, lse, shift, k, v, k_bar, v_bar, k_sums, v_sums, *, keys, scale):
    pl.when(pl.program_id(3) == 0)(lambda: _clear(k_sums, v_sums))
    p, S_bar = _weights(q, o_bar, lse, shift, k, v, pl.program_id(2), keys, scale)
    k_sums[...] += _queries(q[...], S_bar.astype(q.dtype))
    v_sums[...] += _queries(o_bar[...], p.astype(o_bar.dtype))

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def finish() -> None:
        k_bar[...] = k_sums[...].astype(k_bar.dtype)
        v_bar[...] = v_sums[...].astype(v_bar.dtype)


# ---- How arrays are cut into blocks ----------------------------------------------------------------------------------


class _Grid:
    """A loop over examples, heads, blocks of queries and, innermost, blocks of keys; or these two the other way."""

    def __init__(self, q: Array, k: Array, *, keys_first: bool = False) -> None:
        self.q, self.k, self.keys_first = q, k, keys_first
        self.size = {"queries": _block(q.shape[1]), "keys": _block(k.shape[1])}
        self.number = {"queries": -(-q.shape[1] // self.size["queries"]), "keys": -(-k.shape[1] // self.size["keys"])}

    def swapped(self) -> _Grid:
        return _Grid(self.q, self.k, keys_first=not self.keys_first)

    def call(
        self,
        kernel: Callable[..., None],
        name: str,
        args: Sequence[tuple[Array, str]],
        outs: Sequence[tuple[jnp.dtype, str]],
        scratch: Sequence[str],
        products: int,
        interpret: bool,
    ) -> Sequence[Array]:
        """What a kernel makes of its arguments, with so many products of all queries with all keys."""
        batch, _, heads, features = self.q.shape
        q_size, k_size = self.size["queries"], self.size["keys"]
        order = ("keys", "queries") if self.keys_first else ("queries", "keys")
        length = {side: self.number[side] * self.size[side] for side in order}
        shapes = {
            "queries": (batch, heads, features, length["queries"]),
            "keys": (batch, heads, features, length["keys"]),
            "rows": (batch, heads, 1, length["queries"]),
        }
        scratches = {"row": (1, q_size), "queries": (features, q_size), "keys": (features, k_size)}
        return pl.pallas_call(
            kernel,
            out_shape=[jax.ShapeDtypeStruct(shapes[kind], dtype) for dtype, kind in outs],
            grid=(batch, heads, self.number[order[0]], self.number[order[1]]),
            in_specs=[self._spec(kind) for _, kind in args],
            out_specs=[self._spec(kind) for _, kind in outs],
            scratch_shapes=[pltpu.VMEM(scratches[kind], jnp.float32) for kind in scratch],
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
            cost_estimate=self._cost(products, args, outs),
            interpret=interpret,
            name=name,
        )(*(self._laid_out(x, kind) for x, kind in args))

    def _cost(
        self, products: int, args: Sequence[tuple[Array, str]], outs: Sequence[tuple[jnp.dtype, str]]
    ) -> pl.CostEstimate:
        """For the compiler, and for plans: what is inner is read again for each block of what is outer."""
        batch, _, heads, features = self.q.shape
        length = {side: self.number[side] * self.size[side] for side in self.number}
        pairs = batch * heads * length["queries"] * length["keys"]
        inner = "queries" if self.keys_first else "keys"
        again = self.number["keys" if self.keys_first else "queries"]

        def size(dtype: Any, kind: str, times: int) -> int:
            side, width = ("keys" if kind == "keys" else "queries"), (1 if kind == "rows" else features)
            return batch * heads * length[side] * width * jnp.dtype(dtype).itemsize * (times if side == inner else 1)

        moved = sum(size(x.dtype, kind, again) for x, kind in args) + sum(size(dtype, kind, 1) for dtype, kind in outs)
        return pl.CostEstimate(flops=2 * products * pairs * features, bytes_accessed=moved, transcendentals=pairs)

    def _spec(self, kind: str) -> pl.BlockSpec:
        side = "keys" if kind == "keys" else "queries"
        outer = (side == "keys") == self.keys_first
        features = 1 if kind == "rows" else self.q.shape[-1]
        index = (lambda b, h, i, j: (b, h, 0, i)) if outer else (lambda b, h, i, j: (b, h, 0, j))
        return pl.BlockSpec((None, None, features, self.size[side]), index)

    def _laid_out(self, x: Array, kind: str) -> Array:
        side = "keys" if kind == "keys" else "queries"
        x = x[:, :, None] if kind == "rows" else x.transpose(0, 2, 3, 1)
        padding = self.number[side] * self.size[side] - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, padding)))

    def queries_of(self, x: Array) -> Array:
        return x[..., : self.q.shape[1]].transpose(0, 3, 1, 2)

    def keys_of(self, x: Array) -> Array:
        return x[..., : self.k.shape[1]].transpose(0, 3, 1, 2)

    def rows_of(self, x: Array) -> Array:
        return x[:, :, 0, : self.q.shape[1]]


def _block(length: int) -> int:
    """Positions of a block, whole lanes of them."""
    return min(BLOCK, -(-length // LANES) * LANES)
