from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.remat import keep_nothing
from models.stable_unet import StableUNet, stable_1_5, stable_2_1
from models.stable_unet_blocks import MultiHeadAttention, ResidualBlock, TextTransformer
from tests.models.conftest import Case, S, T, W

# What every network promises. This one has text in the place of labels, so it is not in the list of conftest.py.
from tests.models.test_backbones import (  # noqa: F401
    test_a_guided_network_starts_as_the_unguided_one_with_its_parameters,
    test_derivatives,
    test_dropout_is_a_function_of_the_key,
    test_each_condition_changes_its_own_example_alone,
    test_half_precision_body,
    test_new_values_do_not_compile_again,
)


class TextCase(Case):
    """The network with text for labels."""

    @cached_property
    def params(self):
        """Random parameters; times and scales get weights that lift their derivatives above rounding."""

        def enlarged(path, a):
            return 5 * a if any(part.key == "affine" for part in path) else a

        with jax.ensure_compile_time_eval():  # they may be asked for inside a trace, as in `random_params`
            return jax.tree_util.tree_map_with_path(enlarged, super().params)


TINY = StableUNet(
    channels=(8, 12),
    attends=(True, False),
    heads=(2, 3),
    blocks=0,
    text_features=6,
    latent_channels=3,
    groups=4,
    second_time=True,
    guided=True,
    dropout=0.4,
)
SMALL = TINY.clone(channels=(8,), attends=(False,), heads=(2,))  # the middle and one more block
TEXT = jax.random.normal(jax.random.key(1), (3, 5, 6))
NETWORK = TextCase(TINY, jax.random.normal(jax.random.key(0), (3, 4, 8, 3)), T, TEXT, S, W)
INPUTS = NETWORK.x, T, TEXT, S, W


@pytest.fixture
def case() -> Case:
    """The network of this file."""
    return NETWORK


def shapes_of(module, side=8):
    x, t = jnp.zeros((1, side, side, module.latent_channels)), jnp.zeros(1)
    s, w = (t if module.second_time else None), (t if module.guided else None)
    text = jnp.zeros((1, 77, module.text_features))
    return jax.eval_shape(module.init, jax.random.key(0), x, t, text, s, w)["params"]


def count(shapes):
    return sum(a.size for a in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("form", "parameters"), [(stable_1_5, 859_520_964), (stable_2_1, 865_910_724)])
def test_parameter_count_of_the_published_networks(form, parameters):
    assert count(shapes_of(form())) == parameters


def test_heads_of_the_published_networks():
    assert [c // h for c, h in zip(stable_1_5().channels, stable_1_5().heads, strict=True)] == [40, 80, 160, 160]
    assert [c // h for c, h in zip(stable_2_1().channels, stable_2_1().heads, strict=True)] == [64] * 4


def test_layers_and_where_attention_is():
    down = {"down0_block0", "down0_attention0", "down0_conv", "down1_block0"}
    up = {"up1_block0", "up1_block1", "up1_conv", "up0_block0", "up0_attention0", "up0_block1", "up0_attention1"}
    middle = {"middle_block0", "middle_attention0", "middle_block1"}
    ends = {"in_conv", "out_norm", "out_conv", "map_layer0", "map_layer1", "map_s", "map_w"}
    shapes = shapes_of(TINY.clone(blocks=1))
    assert set(shapes) == down | middle | up | ends
    # The skips, last in first out: 8 from in_conv, 8 and 8 from the first resolution, 12 from the second.
    wide = {name: shapes[name]["conv0"]["kernel"].shape[2] for name in up if "block" in name}
    assert wide == {"up1_block0": 24, "up1_block1": 20, "up0_block0": 20, "up0_block1": 16}


def test_initialization_is_the_default_of_pytorch_and_the_output_zero():
    module = StableUNet(channels=(32,), attends=(False,), heads=(4,), blocks=0, text_features=64, second_time=True)
    x, t, text = jnp.ones((1, 4, 4, 4)), jnp.ones(1), jnp.ones((1, 3, 64))
    variables = jax.jit(module.init)(jax.random.key(0), x, t, text, t)
    params = variables["params"]
    block, attention = params["middle_block0"], params["middle_attention0"]
    cross = attention["cross_attention"]
    for layer, fan in ((block["conv0"], 9 * 32), (block["affine"], 128), (attention["mlp0"], 32), (cross["k"], 64)):
        for a in jax.tree.leaves(layer):
            assert 0.9 < jnp.abs(a).max() * np.sqrt(fan) <= 1.0001
    for layer in (block["conv1"], attention["proj_out"], params["map_s"], params["out_conv"]):
        assert not any(jnp.any(a) for a in jax.tree.leaves(layer))
    assert not np.any(np.asarray(jax.jit(module.apply)(variables, x, t, text, t)))


def test_a_network_of_two_times_starts_as_that_of_one_with_its_parameters(randomized):
    bare = SMALL.clone(second_time=False)
    params = randomized(bare, NETWORK.x, T, TEXT, None, W)
    joined = {"params": params["params"] | {"map_s": {"kernel": jnp.zeros((8, 8))}}}
    expected = jax.jit(bare.apply)(params, NETWORK.x, T, TEXT, None, W)
    np.testing.assert_array_equal(jax.jit(SMALL.apply)(joined, *INPUTS), expected)


def test_the_derivative_by_text():
    direction = jax.random.normal(jax.random.key(2), TEXT.shape)
    value = lambda text: NETWORK.module.apply(NETWORK.params, NETWORK.x, T, text, S, W)
    tangent = jax.jit(lambda: jax.jvp(value, (TEXT,), (direction,))[1])()
    there, back = (NETWORK.value(NETWORK.params, NETWORK.x, T, TEXT + h * direction, S, W) for h in (1e-2, -1e-2))
    size = float(jnp.abs(tangent).max())
    assert size > 1e-3
    np.testing.assert_allclose(tangent, (there - back) / 2e-2, atol=2e-3 * size)


def test_text_has_any_length_and_no_order():
    base = NETWORK.value(NETWORK.params, *INPUTS)
    for text in (TEXT[:, ::-1], jnp.concatenate([TEXT, TEXT], axis=1)):
        found = jax.jit(TINY.apply)(NETWORK.params, NETWORK.x, T, text, S, W)
        np.testing.assert_allclose(found, base, rtol=1e-4, atol=1e-4)


def test_residual_block_equals_its_formula(randomized):
    block = ResidualBlock(8, 2, 0.0, True, jnp.float32)
    x, embedding = jax.random.normal(jax.random.key(0), (2, 3, 4, 6)), jax.random.normal(jax.random.key(1), (2, 5))
    variables = randomized(block, x, embedding)
    p = variables["params"]

    def norm(p, h):
        grouped = h.reshape(*h.shape[:3], 2, -1)
        mean, variance = (f(grouped, axis=(1, 2, 4), keepdims=True) for f in (jnp.mean, jnp.var))
        return ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(h.shape) * p["scale"] + p["bias"]

    def conv(p, h):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(h, p["kernel"], (1, 1), "SAME", dimension_numbers=dimensions) + p["bias"]

    h = conv(p["conv0"], jax.nn.silu(norm(p["norm0"], x)))
    h += (embedding @ p["affine"]["kernel"] + p["affine"]["bias"])[:, None, None, :]
    expected = conv(p["skip"], x) + conv(p["conv1"], jax.nn.silu(norm(p["norm1"], h)))
    np.testing.assert_allclose(jax.jit(block.apply)(variables, x, embedding), expected, rtol=1e-4, atol=1e-5)


def test_attention_to_one_text_state_is_that_state(randomized):
    layer = MultiHeadAttention(2, lambda q, k, v: jnp.broadcast_to(v, q.shape), jnp.float32)
    tokens, text = jax.random.normal(jax.random.key(0), (2, 7, 8)), jax.random.normal(jax.random.key(1), (2, 1, 5))
    variables = randomized(layer, tokens, text)
    p = variables["params"]
    expected = jnp.broadcast_to(text @ p["v"]["kernel"] @ p["out"]["kernel"] + p["out"]["bias"], tokens.shape)
    np.testing.assert_allclose(jax.jit(layer.apply)(variables, tokens, text), expected, rtol=1e-4, atol=1e-5)
    softmax = MultiHeadAttention(2, TINY.attention, jnp.float32)
    np.testing.assert_allclose(jax.jit(softmax.apply)(variables, tokens, text), expected, rtol=1e-4, atol=1e-5)


def test_every_attention_is_the_callable_that_was_passed(randomized):
    seen = []

    def attention(q, k, v):
        seen.append((q.shape, k.shape))
        return jnp.zeros_like(q)

    jax.eval_shape(TINY.clone(attention=attention).apply, NETWORK.params, *INPUTS)
    high = [((3, 32, 2, 4), (3, 32, 2, 4)), ((3, 32, 2, 4), (3, 5, 2, 4))]
    low = [((3, 8, 3, 4), (3, 8, 3, 4)), ((3, 8, 3, 4), (3, 5, 3, 4))]
    assert seen == low + high


def test_rematerialization_changes_no_number(randomized):
    start = randomized(SMALL, *INPUTS)

    def loss(params, module):
        return jnp.sum(module.apply(params, *INPUTS, train=True, rngs={"dropout": jax.random.key(3)}) ** 2)

    kept, recomputed = (
        jax.jit(jax.grad(partial(loss, module=module)))(start) for module in (SMALL, SMALL.clone(remat=keep_nothing))
    )
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()))


def test_half_precision_is_that_of_every_block():
    dtypes = {}

    def record(layer, arguments, keywords, context):
        out = layer(*arguments, **keywords)
        if isinstance(context.module, ResidualBlock | TextTransformer) and context.method_name == "__call__":
            dtypes[context.module.name] = out.dtype
        return out

    with nn.intercept_methods(record):
        jax.eval_shape(TINY.clone(dtype=jnp.bfloat16).apply, NETWORK.params, *INPUTS)
    assert len(dtypes) == 6
    assert set(dtypes.values()) == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({}, {"x": jnp.zeros((3, 4, 7, 3))}, "4x7 pixels are not divisible by 2"),
        ({}, {"x": jnp.zeros((3, 4, 8, 4))}, "latents of 3 channels, got 4"),
        ({}, {"text": jnp.zeros((3, 5, 7))}, r"text must have shape \(3, length, 6\), got \(3, 5, 7\)"),
        ({}, {"text": jnp.zeros((2, 5, 6))}, r"text must have shape \(3, length, 6\), got \(2, 5, 6\)"),
        ({}, {"text": jnp.zeros((3, 6))}, r"text must have shape \(3, length, 6\), got \(3, 6\)"),
        ({}, {"s": None}, "second_time=True and needs s"),
        ({}, {"w": None}, "guided=True and needs w, a guidance scale"),
        ({"second_time": False}, {}, "s was given to a network with second_time=False"),
        ({"guided": False}, {}, "w was given to a network with guided=False"),
        ({"heads": (2,)}, {}, "an entry for each resolution, got 2, 2 and 1"),
        ({"heads": (3, 3)}, {}, r"heads=\(3, 3\) do not divide channels=\(8, 12\)"),
        ({"groups": 8}, {}, r"groups=8 do not divide channels=\(8, 12\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_impossible_inputs_and_settings_are_refused(settings, inputs, message):
    arguments = {"x": NETWORK.x, "t": T, "text": TEXT, "s": S, "w": W} | inputs
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(TINY.clone(**settings).init, jax.random.key(0)), **arguments)
