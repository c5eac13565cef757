"""Sums of what a checkpoint holds, since Orbax keeps none: of the bits of every leaf, and of the facts."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def leaves_by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their path, joined by "/"."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def checksums(tree: PyTree) -> dict[str, int]:
    """The sum of the bit patterns of each leaf, modulo 2^32: exact, and the same however the leaf is sharded."""
    return {name: int(value) for name, value in leaves_by_name(_bit_sums(tree)).items()}


def sum_of_facts(facts: dict[str, Any]) -> int:
    """The CRC of a JSON object, whatever the order of its names."""
    as_read = json.loads(json.dumps(facts))  # tuples are lists then, and every name is text
    return zlib.crc32(json.dumps(as_read, sort_keys=True).encode())


@jax.jit
def _bit_sums(tree: PyTree) -> PyTree:
    def bit_sum(leaf: Array) -> Array:
        if leaf.dtype == bool:
            return jnp.sum(leaf, dtype=jnp.uint32)
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(bits, dtype=jnp.uint32)

    return jax.tree.map(bit_sum, tree)
