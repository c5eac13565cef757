from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.adm import adm
from models.adm_blocks import ADMBlock
from models.attention import softmax_attention
from models.non_scaling_norm import non_scaling_norm
from models.unet import ddpmpp, ncsnpp
from models.unet_blocks import UNetBlock, group_norm


class Layer(nn.Module):
    """The norm alone."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """Normalise."""
        return non_scaling_norm(x, self.dtype, "norm")


def applied(bias, x, dtype=jnp.float32) -> Any:
    """The norm with these parameters."""
    return Layer(dtype).apply({"params": {"norm": {"bias": bias}}}, x)


X = 3.0 + 5.0 * jax.random.normal(jax.random.key(0), (2, 3, 4, 64))


def test_mean_over_channels_is_that_of_the_bias_and_variance_is_one():
    params = Layer().init(jax.random.key(0), X)["params"]
    assert jax.tree.map(jnp.shape, params) == {"norm": {"bias": (64,)}}
    np.testing.assert_array_equal(params["norm"]["bias"], 0.0)

    bias = jax.random.normal(jax.random.key(1), (64,))
    out = applied(bias, X)
    np.testing.assert_allclose(out.mean(axis=-1), jnp.full(X.shape[:-1], bias.mean()), atol=1e-5)
    np.testing.assert_allclose(jnp.var(out - bias, axis=-1), 1.0, rtol=1e-5)
    # Neither the size of the input nor what it has in common is seen.
    np.testing.assert_allclose(applied(bias, 7.0 * X - 20.0), out, atol=1e-4)


def test_half_precision_has_float32_statistics():
    """A sum of 256 numbers around 300 in bfloat16 is off by more than their spread."""
    x = (300.0 + 8.0 * jax.random.normal(jax.random.key(0), (4, 256))).astype(jnp.bfloat16)
    out = applied(jnp.zeros(256), x, jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    expected = applied(jnp.zeros(256), x.astype(jnp.float32))
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("form", [ddpmpp, ncsnpp, adm])
def test_a_network_with_it_has_all_parameters_but_the_scales(form):
    module = form(channels=32, multipliers=(1, 2), blocks=1, attention_resolutions=(4,), dropout=0.0)

    def shapes(module):
        tree = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
        return {jax.tree_util.keystr(path): a.shape for path, a in jax.tree_util.tree_leaves_with_path(tree)}

    default, without = shapes(module), shapes(module.clone(norm=non_scaling_norm))
    scales = {name for name in default if name.endswith("['scale']")}
    assert len(scales) > 10
    assert without == {name: shape for name, shape in default.items() if name not in scales}


@pytest.mark.parametrize("form", ["edm", "adm"])
def test_a_block_uses_the_norm_that_it_is_given(form, randomized):
    """Group normalisation sees the whole image: one pixel changes all. This one leaves what two convolutions reach."""
    x, embedding = jax.random.normal(jax.random.key(0), (1, 8, 8, 8)), jnp.ones((1, 4))
    common: dict[str, Any] = {"double_norm": False, "dropout": 0.0, "deterministic": True, "dtype": jnp.float32}

    def changed(norm):
        block: nn.Module = (
            UNetBlock(8, None, None, norm=norm, **common)
            if form == "edm"
            else ADMBlock(8, None, 0, softmax_attention, adaptive_scale=True, norm=norm, **common)
        )
        apply, params = jax.jit(block.apply), randomized(block, x, embedding)
        out, moved = apply(params, x, embedding), apply(params, x.at[0, 0, 0].add(1.0), embedding)
        return np.asarray(out != moved)[0].any(axis=-1)

    near = np.zeros((8, 8), bool)
    near[:3, :3] = True
    np.testing.assert_array_equal(changed(non_scaling_norm), near)
    assert changed(group_norm).all()
