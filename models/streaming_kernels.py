"""The four functions that streaming attention is made of, as one value: what an implementation provides."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

Queries: TypeAlias = Float[Array, "batch queries heads features"]
Keys: TypeAlias = Float[Array, "batch keys heads features"]


class Kernels(NamedTuple):
    """o = softmax(q k^T / sqrt(D)) v and its first derivatives, each in one pass and in memory O(L).

    q, o, dq and their like are [B, L, H, D] in one dtype, k and v may have another L; lse, the logarithm of the
    denominators, is [B, H, L] in float32 or wider. A dot is a tangent and a bar a cotangent.

    Attributes:
        forward: (q, k, v) -> (o, lse).
        dual: (q, k, v, q_dot, k_dot, v_dot) -> (o, lse, o_dot).
        backward: (q, k, v, o, lse, o_bar) -> (q_bar, k_bar, v_bar).
        partitionable: whether XLA can share it out over devices; what it cannot is called once on each.
    """

    forward: Callable[[Array, Array, Array], tuple[Array, Array]]
    dual: Callable[[Array, Array, Array, Array, Array, Array], tuple[Array, Array, Array]]
    backward: Callable[[Array, Array, Array, Array, Array, Array], tuple[Array, Array, Array]]
    partitionable: bool


def logit_scale(features: int) -> float:
    """What logits are multiplied by."""
    return 1 / math.sqrt(features)


def accumulator(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of sums over keys: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)


def interpreting(forward: Callable[..., Any], dual: Callable[..., Any], backward: Callable[..., Any]) -> Kernels:
    """Pallas kernels run by JAX's interpreter on any platform: slow, and XLA can partition what they become."""
    forward, dual, backward = (partial(kernel, interpret=True) for kernel in (forward, dual, backward))
    return Kernels(forward, dual, backward, partitionable=True)
