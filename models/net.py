"""What a network is in this folder: its type, and the checks on its inputs that every backbone shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Net: TypeAlias = Callable[[Array, Array], Array]
"""`net(x[B, ...], t[B]) -> [B, ...]`; parameters, labels and dropout key live in the closure."""


def expand(value: Float[Array, " batch"] | Float[Array, ""] | float, x: Array) -> Array:
    """Reshape one number per example (or one for all) so that it broadcasts against `x[B, ...]`."""
    return jnp.reshape(jnp.asarray(value), (-1,) + (1,) * (x.ndim - 1))


def at_least_float32(a: Array) -> Array:
    """Promote a half-precision array to float32 and leave a float64 array as it is."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def check_conditions(
    x: Array,
    t: Array,
    labels: Array | None,
    s: Array | None,
    w: Array | None,
    num_classes: int,
    second_time: bool,
    guided: bool,
) -> None:
    """Refuse inputs that do not fit the network. Shapes are static, so this runs while JAX traces.

    Raises:
        ValueError: `t`, `labels`, `s` or `w` do not have shape `[B]`, or are given to a network without
            them, or are missing from a network that needs them.
    """
    batch = x.shape[:1]
    if num_classes == 0 and labels is not None:
        raise ValueError("labels were given to an unconditional network (num_classes=0)")
    if num_classes > 0 and labels is None:
        raise ValueError(
            f"this network has num_classes={num_classes} and needs labels; the null class is {num_classes}"
        )
    if second_time and s is None:
        raise ValueError("this network has second_time=True and needs s")
    if not second_time and s is not None:
        raise ValueError("s was given to a network with second_time=False")
    if guided and w is None:
        raise ValueError("this network has guided=True and needs w, a guidance scale for each example")
    if not guided and w is not None:
        raise ValueError("w was given to a network with guided=False")
    for name, value in {"t": t, "labels": labels, "s": s, "w": w}.items():
        if value is not None and value.shape != batch:
            raise ValueError(f"{name} must have shape {batch}, one entry per example of x; got {value.shape}")
