"""Parameters of scanned blocks are cast once, before the scan, and nothing but their type changes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from models import DiT, InContextDiT, UViT

X, T, ONE = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.2, 0.7]), jnp.ones(2)
DEPTH = 3
NETWORKS: dict[str, tuple[Any, tuple[Any, ...], str, int]] = {
    # Network, inputs, the layers that stay float32, how many others a block has.
    "dit": (partial(DiT, patch=2, width=16, depth=DEPTH, heads=2), (X, T), "modulation", 4),
    "in_context_dit": (
        partial(InContextDiT, patch=2, width=16, depth=2 * DEPTH, heads=2, head_depth=DEPTH),
        (X, T, None, 2 * ONE, 0 * ONE, ONE),
        "norm",
        5 + 2,  # and two gates
    ),
    "uvit": (
        partial(UViT, channels=8, multipliers=(1,), blocks=1, width=16, depth=DEPTH, heads=2, embedding_width=16),
        (X, T),
        "norm0 norm1 norm_q norm_k affine",
        4,
    ),
}


def parameters(module, inputs):
    """None of them zero, nor such that bfloat16 has it."""
    params = module.init(jax.random.key(1), *inputs)["params"]
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params)


def stacked(params):
    """The parameters that have an axis of blocks, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path: leaf for path, leaf in leaves if {"blocks", "transformer"} & {key.key for key in path}}


def scans(jaxpr):
    """Every scan in a program, those within others included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from scans(inner)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_values_are_those_of_a_cast_in_every_block(name, monkeypatch):
    make, inputs, _, _ = NETWORKS[name]
    module = make(dtype=jnp.bfloat16)
    params = parameters(module, inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    found = module.apply({"params": params}, *inputs)
    for file in ("dit", "in_context_dit", "uvit"):
        monkeypatch.setattr(f"models.{file}.narrowed", lambda blocks, dtype, but: blocks)
    expected = module.apply({"params": params}, *inputs)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_of_all_blocks_lie_in_the_type_of_the_products(name):
    make, inputs, wide, layers = NETWORKS[name]

    def types(dtype):
        module = make(dtype=dtype)
        params = parameters(module, inputs)
        gradient = jax.grad(lambda params: sum(jnp.sum(a**2) for a in jax.tree.leaves(module.apply(params, *inputs))))
        program = jax.make_jaxpr(gradient)({"params": params})
        found = {jnp.dtype("float32"): 0, jnp.dtype("bfloat16"): 0}
        shapes = {leaf.shape for leaf in stacked(params).values()}
        for scan in scans(program.jaxpr):
            for out in scan.outvars:
                if scan.params["reverse"] and out.aval.shape in shapes:
                    found[out.aval.dtype] += 1
        jax.tree.map(lambda leaf: np.testing.assert_equal(leaf.dtype, np.float32), program.out_avals)
        return found, params

    (found, params), (whole, _) = types(jnp.bfloat16), types(jnp.float32)
    kept = [path for path in stacked(params) if any(key.key.startswith(tuple(wide.split())) for key in path)]
    assert whole == {jnp.dtype("float32"): len(stacked(params)), jnp.dtype("bfloat16"): 0}
    assert found[jnp.dtype("float32")] == len(kept)
    assert found[jnp.dtype("bfloat16")] == len(stacked(params)) - len(kept) >= layers
