import jax
import jax.numpy as jnp
import numpy as np

from models import DiT
from models.remat import REMATS


def kept_bytes(remat) -> int:
    """What the scan over blocks hands from the forward to the backward pass."""
    module = DiT(patch=2, width=64, depth=5, heads=2, remat=remat)
    x, t = jnp.zeros((2, 8, 8, 3)), jnp.zeros(2)
    params = jax.eval_shape(module.init, jax.random.key(0), x, t)
    _, backward = jax.eval_shape(lambda p: jax.vjp(lambda p: module.apply(p, x, t), p), params)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return sum(leaf.size for leaf in jax.tree.leaves(backward)) - parameters


def test_less_is_kept_the_more_is_computed_again():
    all_, dots, nothing = (kept_bytes(REMATS[name]) for name in ("none", "dots", "full"))
    tokens, width, depth = 2 * 16, 64, 5
    # Linear layers give 3 + 1 + 4 + 1 widths a token and 6 an example; each block's input is kept besides.
    assert dots - nothing == depth * (tokens * 9 * width + 2 * 6 * width)
    assert all_ > 2 * dots


def test_unrolled_blocks_give_the_same_gradient_and_are_computed_again():
    """Where an iteration of the scan has several blocks, the compiler is kept from merging the two computations."""
    x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.array([0.2, 0.7])
    gradients = {}
    for unroll in (1, 3):  # the second of which does not divide the depth
        module = DiT(patch=2, width=16, depth=4, heads=2, remat=REMATS["dots"], unroll=unroll)
        params = module.init(jax.random.key(1), x, t)
        params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params)
        gradient = jax.jit(jax.grad(lambda params, module=module: (module.apply(params, x, t) ** 2).sum()))
        assert ("optimization_barrier" in gradient.lower(params).as_text()) == (unroll > 1)
        gradients[unroll] = gradient(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()),
        gradients[3],
        gradients[1],
    )
