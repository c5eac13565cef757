"""The networks that the recipes of `benchmarks/step_recipes.py` call, all of one backbone's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from models import DiT


class Networks(NamedTuple):
    """Calls of one backbone, told two times and a label, at given parameters."""

    u: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
    """(x_t, t, s, labels) -> [B, ...]"""
    two: Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]
    """The same with two outputs, from an image of twice the channels."""
    encode: Callable[[jax.Array, jax.Array], jax.Array]
    """(x, labels) -> [B, ...] of twice the channels, by a network of one block and a quarter of the width."""
    null: int
    """The label that means none."""


def shapes(model: DiT, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Shapes of the parameters of each, for images of this shape."""
    *size, channels = shape
    one, label = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def initial(network: DiT, channels: int) -> Any:
        image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
        return jax.eval_shape(network.init, key, image, one, label, one)

    encoder = _encoder(model, channels)
    return {"u": initial(model, channels), "two": initial(model, 2 * channels), "encode": initial(encoder, channels)}


def bind(model: Any, params: Mapping[str, Any]) -> Networks:
    """The networks at these parameters; those of networks that are not called may be missing.

    A backbone without a second time is told the first alone, which is all that recipes of one time need.
    """

    def u(x: jax.Array, t: jax.Array, s: jax.Array, y: jax.Array) -> jax.Array:
        return cast(jax.Array, model.apply(params["u"], x, t, y, *([t - s] if model.second_time else [])))

    def two(x: jax.Array, t: jax.Array, s: jax.Array, y: jax.Array, g: Any) -> tuple[jax.Array, jax.Array]:
        both = model.apply(params["two"], jnp.concatenate([x, x], axis=-1), t, y, t - s)
        first, second = jnp.split(cast(jax.Array, both), 2, axis=-1)
        return first, second

    def encode(x: jax.Array, y: jax.Array) -> jax.Array:
        t = jnp.zeros(len(x))
        return cast(jax.Array, _encoder(model, x.shape[-1]).apply(params["encode"], x, t, y, t))

    return Networks(u, two, encode, model.num_classes)


def _encoder(model: DiT, channels: int) -> DiT:
    return model.clone(width=model.width // 4, depth=1, unroll=1, out_channels=2 * channels)
