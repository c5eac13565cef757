"""A function of rows, a few of them at a time: memory stays small, and no device of several is idle. Not a run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_parts(f: Callable[[jax.Array], Any], x: jax.Array, *, each: int, devices: int) -> Any:
    """f(x), so many rows of every device at a time.

    Rows lie on the devices in order, as many on each, so that no row travels. Rows that the devices do not divide are
    taken as if there were one.

    Args:
        f: of rows [n, ...], each by itself; to arrays [n, ...].
        x: the rows.
        each: rows of a device in one call.
        devices: that the rows are spread over.
    """
    devices = 1 if len(x) % devices else devices
    share, shape = len(x) // devices, x.shape[1:]
    if share <= each:
        return f(x)
    # Every call gets as many rows; those that are missing in the last are zeros.
    even = jnp.pad(x.reshape(devices, share, *shape), [(0, 0), (0, -share % each), *[(0, 0)] * len(shape)])
    parts = even.reshape(devices, -1, each, *shape).swapaxes(0, 1).reshape(-1, devices * each, *shape)

    def in_order(y: jax.Array) -> jax.Array:
        of_device = y.reshape(-1, devices, each, *y.shape[2:]).swapaxes(0, 1).reshape(devices, -1, *y.shape[2:])
        return of_device[:, :share].reshape(-1, *y.shape[2:])

    return jax.tree.map(in_order, jax.lax.map(f, parts))
