import jax
import jax.numpy as jnp

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
