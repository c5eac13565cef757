"""Streaming attention in plain JAX: loops over blocks of queries and keys, for every platform.

With logits S = q k^T / sqrt(D), a row's maximum m and p = exp(S - m), a block of keys updates

    total <- total + sum p,    o <- o + p v,    g <- g + (p S_dot) v + p v_dot,    mu <- mu + sum p S_dot

after what was there is multiplied by exp(m_before - m). The output is o / total and its tangent
(g - mu o / total) / total.
The maximum needs no derivative: the result does not depend on it.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from .streaming_kernels import Kernels, accumulator, logit_scale

BLOCK = 512
"""Queries and keys of a block. The temporaries are a few arrays [B, H, BLOCK, BLOCK], whatever the length."""


def forward(q: Array, k: Array, v: Array, *, block: int = BLOCK) -> tuple[Array, Array]:
    """(o, lse) of `Kernels`. Differentiable by JAX, any number of times and in both modes, in memory O(L)."""
    acc, scale = accumulator(q.dtype), logit_scale(q.shape[-1])
    keys = _blocks(k, block), _blocks(v, block), _exists(k, block)
    # Derivatives of any order compute the blocks again. Inside of a loop that needs no barrier.
    again = partial(jax.checkpoint, prevent_cse=False)

    @again
    def rows(q: Array) -> tuple[Array, Array]:
        @again
        def add(sums: tuple[Array, Array, Array], at: tuple[Array, Array, Array]) -> tuple[tuple, None]:
            (m, total, o), (k, v, exists) = sums, at
            S = jnp.where(exists, scale * _product("bhqd,bhkd->bhqk", q, k), -jnp.inf)
            m, before = _maximum(m, S)
            p = jnp.exp(S - m[..., None])
            return (m, before * total + p.sum(-1), before[..., None] * o + _product("bhqk,bhkd->bhqd", p, v)), None

        (m, total, o), _ = jax.lax.scan(add, (*_empty(q, acc), jnp.zeros(q.shape, acc)), keys)
        return (o / total[..., None]).astype(q.dtype), m + jnp.log(total)

    o, lse = jax.lax.map(rows, _blocks(q, block))
    return _joined(o, q), _joined_rows(lse, q)


def dual(
    q: Array, k: Array, v: Array, q_dot: Array, k_dot: Array, v_dot: Array, *, block: int = BLOCK
) -> tuple[Array, Array, Array]:
    """(o, lse, o_dot) of `Kernels`."""
    acc, scale = accumulator(q.dtype), logit_scale(q.shape[-1])
    # Each pair of products that is added up is one product over twice the length.
    keys = (
        _blocks(k, block),
        _blocks(jnp.concatenate([k_dot, k], axis=-1), block),
        _blocks(v, block),
        _blocks(v_dot, block),
        _exists(k, block),
    )

    def rows(queries: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        q, q_q_dot = queries

        def add(sums: tuple[Array, ...], at: tuple[Array, ...]) -> tuple[tuple, None]:
            (m, total, mu, o, g), (k, k_dot_k, v, v_dot, exists) = sums, at
            S = jnp.where(exists, scale * _product("bhqd,bhkd->bhqk", q, k), -jnp.inf)
            S_dot = scale * _product("bhqd,bhkd->bhqk", q_q_dot, k_dot_k)
            m, before = _maximum(m, S)
            p = jnp.exp(S - m[..., None])
            p_S_dot = p * S_dot
            total, mu = before * total + p.sum(-1), before * mu + p_S_dot.sum(-1)
            both = jnp.concatenate([p_S_dot, p], axis=-1), jnp.concatenate([v, v_dot], axis=-2)
            o = before[..., None] * o + _product("bhqk,bhkd->bhqd", p, v)
            g = before[..., None] * g + _product("bhqk,bhkd->bhqd", *both)
            return (m, total, mu, o, g), None

        m, total = _empty(q, acc)
        wide = jnp.zeros(q.shape, acc)
        (m, total, mu, o, g), _ = jax.lax.scan(add, (m, total, total, wide, wide), keys)
        o = o / total[..., None]
        o_dot = g / total[..., None] - (mu / total)[..., None] * o
        return o.astype(q.dtype), m + jnp.log(total), o_dot.astype(q.dtype)

    o, lse, o_dot = jax.lax.map(rows, (_blocks(q, block), _blocks(jnp.concatenate([q, q_dot], axis=-1), block)))
    return _joined(o, q), _joined_rows(lse, q), _joined(o_dot, q)


def backward(
    q: Array, k: Array, v: Array, o: Array, lse: Array, o_bar: Array, *, block: int = BLOCK
) -> tuple[Array, Array, Array]:
    """(q_bar, k_bar, v_bar) of `Kernels`; the weights are computed again from lse."""
    acc, scale = accumulator(q.dtype), logit_scale(q.shape[-1])
    shift = jnp.einsum("bqhd,bqhd->bhq", o, o_bar, preferred_element_type=acc)
    queries = _blocks(q, block), _blocks(o_bar, block), _row_blocks(lse, block), _row_blocks(shift, block)

    def columns(q_bars: Array, at: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        k, v, exists = at

        def add(sums: tuple[Array, Array], rows: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
            (k_bar, v_bar), (q, o_bar, lse, shift, q_bar) = sums, rows
            S = jnp.where(exists, scale * _product("bhqd,bhkd->bhqk", q, k), -jnp.inf)
            p = jnp.exp(S - lse[..., None])
            S_bar = scale * p * (_product("bhqd,bhkd->bhqk", o_bar, v) - shift[..., None])
            v_bar += _product("bhqk,bhqd->bhkd", p, o_bar)
            k_bar += _product("bhqk,bhqd->bhkd", S_bar, q)
            return (k_bar, v_bar), q_bar + _product("bhqk,bhkd->bhqd", S_bar, k)

        wide = jnp.zeros(k.shape, acc)
        sums, q_bars = jax.lax.scan(add, (wide, wide), (*queries, q_bars))
        return q_bars, sums

    keys = _blocks(k, block), _blocks(v, block), _exists(k, block)
    q_bar, (k_bar, v_bar) = jax.lax.scan(columns, jnp.zeros(queries[0].shape, acc), keys)
    q_bar, k_bar, v_bar = (_joined(bar, x).astype(x.dtype) for bar, x in ((q_bar, q), (k_bar, k), (v_bar, v)))
    return q_bar, k_bar, v_bar


def in_blocks(block: int) -> Kernels:
    """These functions with blocks of this many queries and keys."""
    return Kernels(
        partial(forward, block=block), partial(dual, block=block), partial(backward, block=block), partitionable=True
    )


chunked = in_blocks(BLOCK)


def _product(formula: str, a: Array, b: Array) -> Array:
    """A matrix product whose factors have the dtype of the second and whose sums are float32 or wider."""
    return jnp.einsum(formula, a.astype(b.dtype), b, preferred_element_type=accumulator(b.dtype))


def _empty(q: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Maximum and sum before the first key."""
    return jnp.full(q.shape[:-1], -jnp.inf, dtype), jnp.zeros(q.shape[:-1], dtype)


def _maximum(m: Array, S: Array) -> tuple[Array, Array]:
    """The rows' new maximum, and what sums with the one before are multiplied by."""
    larger = jax.lax.stop_gradient(jnp.maximum(m, S.max(-1)))
    return larger, jnp.exp(m - larger)


# ---- Blocks ----------------------------------------------------------------------------------------------------------
# [B, L, H, D] <-> [blocks, B, H, block, D]; a short last block is filled with zeros.


def _sizes(length: int, block: int) -> tuple[int, int]:
    """Number of blocks and their length, as even as possible."""
    number = -(-length // block)
    return number, -(-length // number)


def _blocks(x: Array, block: int) -> Array:
    batch, length, heads, features = x.shape
    number, size = _sizes(length, block)
    x = jnp.pad(x, ((0, 0), (0, number * size - length), (0, 0), (0, 0)))
    return x.reshape(batch, number, size, heads, features).transpose(1, 0, 3, 2, 4)


def _row_blocks(x: Array, block: int) -> Array:
    batch, heads, length = x.shape
    number, size = _sizes(length, block)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, number * size - length)))
    return jnp.moveaxis(x.reshape(batch, heads, number, size), 2, 0)


def _joined(blocks: Array, like: Array) -> Array:
    batch, length, heads, features = like.shape
    return blocks.transpose(1, 0, 3, 2, 4).reshape(batch, -1, heads, features)[:, :length]


def _joined_rows(blocks: Array, like: Array) -> Array:
    batch, length, heads, _ = like.shape
    return jnp.moveaxis(blocks, 0, 2).reshape(batch, heads, -1)[..., :length]


def _exists(k: Array, block: int) -> Array:
    """Which keys of the blocks are not filling, [blocks, block]."""
    number, size = _sizes(k.shape[1], block)
    return (jnp.arange(number * size) < k.shape[1]).reshape(number, size)
