"""Heads on the features of a network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.feature_heads import FeatureHeads
from models.stable_unet import stable_1_5


def test_every_map_is_judged_by_every_head():
    maps = [jax.random.normal(jax.random.key(i), (2, 8 >> i, 4, 8)) for i in range(2)]
    heads = FeatureHeads(heads=3, groups=4)
    params = heads.init(jax.random.key(2), maps)
    out: Any = heads.apply(params, maps)
    assert [head.shape for head in out] == [(2, 8, 4, 1)] * 3 + [(2, 4, 4, 1)] * 3
    assert all(head.dtype == np.float32 for head in out)
    # Heads share no weights, and a map is judged by its own alone.
    changed: Any = heads.apply(params, [maps[0], maps[1] + 1])
    same = [bool(jnp.array_equal(a, b)) for a, b in zip(out, changed, strict=True)]
    assert same == [True] * 3 + [False] * 3
    assert len({float(head.sum()) for head in out}) == 6


def test_a_head_is_two_convolutions_of_which_the_second_is_added():
    """With kernels that copy a channel, what is left is the norms, the rectifiers and the sum."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    heads = FeatureHeads(heads=1, groups=1)
    params = heads.init(jax.random.key(1), [x])["params"]
    copy = {"kernel": jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2)), "bias": jnp.zeros(2)}
    out = {"kernel": jnp.ones((1, 1, 2, 1)), "bias": jnp.full(1, 0.5)}
    params |= {"map0_head0_conv0": copy, "map0_head0_conv1": copy, "map0_head0_out": out}

    def layer(h):
        h = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
        return np.where(h > 0, h, 0.01 * h)

    once = layer(np.asarray(x))
    expected = (layer(once) + once).sum(-1, keepdims=True) + 0.5
    np.testing.assert_allclose(heads.apply({"params": params}, [x])[0], expected, rtol=1e-5, atol=1e-5)


def test_stable_diffusion_shows_nine_maps():
    """As many channels as PCM's code lists for SD 1.5, at the resolutions that follow a block's resampling."""
    model = stable_1_5()
    x, text = jnp.zeros((1, 64, 64, 4)), jnp.zeros((1, 77, 768))
    _, seen = jax.eval_shape(
        lambda key: model.init_with_output(key, x, jnp.zeros(1), text, mutable=["params", "intermediates"]),
        jax.random.key(0),
    )
    maps = [leaf.shape[1:] for leaf in seen["intermediates"]["blocks"]]
    assert [shape[-1] for shape in maps] == [320, 640, 1280, 1280, 1280, 1280, 1280, 640, 320]
    assert [shape[0] for shape in maps] == [32, 16, 8, 8, 8, 16, 32, 64, 64]
