from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.adm import adm
from models.adm_blocks import ADMBlock
from models.attention import softmax_attention
from models.unet_blocks import group_norm
from tests.models.branches import blocks_of_branch


def shapes_of(module, size=8, labels=None):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros(1), labels)
    return shapes["params"]


def count(shapes):
    return sum(a.size for a in jax.tree.leaves(shapes))


def tiny(**settings):
    shape: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
    return adm(**shape | {"channels_per_head": 8, "dropout": 0.0} | settings)


def test_parameter_count_of_the_published_network():
    shapes = shapes_of(adm(num_classes=1000), size=64, labels=jnp.zeros(1, jnp.int32))
    assert count(shapes) == pytest.approx(295.9e6, rel=2e-4)
    # Additive conditioning halves one layer of every block.
    affine = sum(count(layer["affine"]) for layer in shapes.values() if "affine" in layer)
    additive = shapes_of(adm(num_classes=1000, adaptive_scale=False), size=64, labels=jnp.zeros(1, jnp.int32))
    assert count(shapes) - count(additive) == affine // 2


def test_layers_are_named_by_resolution():
    shapes = shapes_of(tiny())
    assert set(shapes) == {
        *("map_layer0", "map_layer1", "enc_8x8_conv", "enc_8x8_block0", "enc_4x4_down", "enc_4x4_block0"),
        *("dec_4x4_in0", "dec_4x4_in1", "dec_4x4_block0", "dec_4x4_block1"),
        *("dec_8x8_up", "dec_8x8_block0", "dec_8x8_block1", "out_norm", "out_conv"),
    }
    with_attention = {name for name, layer in shapes.items() if "self_attention" in layer}
    assert with_attention == {"enc_4x4_block0", "dec_4x4_in0", "dec_4x4_block0", "dec_4x4_block1"}
    assert not any("self_attention" in layer for layer in shapes_of(tiny(channels_per_head=64)).values())


def test_initialization_is_the_default_of_pytorch_and_the_output_zero():
    module = tiny(channels=32, multipliers=(1,), blocks=0, num_classes=9)
    x, t, labels = jnp.ones((1, 4, 4, 3)), jnp.ones(1), jnp.zeros(1, int)
    variables = jax.jit(module.init)(jax.random.key(0), x, t, labels)
    params = variables["params"]
    block = params["dec_4x4_in0"]
    for layer, fan in ((params["map_layer0"], 32), (block["conv0"], 9 * 32), (block["affine"], 128)):
        for a in jax.tree.leaves(layer):
            assert 0.9 < jnp.abs(a).max() * np.sqrt(fan) <= 1.0001
    for layer in (block["conv1"], block["self_attention"]["proj"], params["out_conv"]):
        assert not any(jnp.any(a) for a in jax.tree.leaves(layer))
    np.testing.assert_allclose(params["map_label"]["kernel"].std(), 1.0, rtol=0.1)
    assert not np.any(np.asarray(jax.jit(module.apply)(variables, x, t, labels)))


def modulated(params, embedding, second, h, **settings):
    """A block without attention, written out; images of one group of four channels."""

    def norm(p, h):
        mean, variance = h.mean((1, 2, 3), keepdims=True), h.var((1, 2, 3), keepdims=True)
        return (h - mean) / jnp.sqrt(variance + 1e-5) * p["scale"] + p["bias"]

    def conv(p, h):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(h, p["kernel"], (1, 1), "SAME", dimension_numbers=dimensions) + p["bias"]

    linear = lambda p, h: (h @ p["kernel"] + p["bias"])[:, None, None, :]
    out = linear(params["affine"], embedding)
    out += 0 if second is None else linear(params["affine_s"], second)
    unit = lambda a: a / jnp.sqrt((a**2).mean(-1, keepdims=True))
    skip, h = h, conv(params["conv0"], jax.nn.silu(norm(params["norm0"], h)))
    if not settings["adaptive_scale"]:
        h = norm(params["norm1"], h + out)
    else:
        scale, shift = 1 + out[..., :4], out[..., 4:]
        scale, shift = (unit(scale), unit(shift)) if settings["double_norm"] else (scale, shift)
        h = norm(params["norm1"], h) * scale + shift
    return skip + conv(params["conv1"], jax.nn.silu(h))


@pytest.mark.parametrize("told_twice", [False, True])
@pytest.mark.parametrize(("adaptive_scale", "double_norm"), [(False, False), (True, False), (True, True)])
def test_block_equals_its_three_formulas(adaptive_scale, double_norm, told_twice, randomized):
    settings = {"adaptive_scale": adaptive_scale, "double_norm": double_norm}
    common: dict[str, Any] = {"dropout": 0.0, "deterministic": True, "dtype": jnp.float32}
    norm = partial(group_norm, epsilon=1e-5)
    block = ADMBlock(4, None, 0, softmax_attention, norm=norm, **common, **settings)
    x, embedding = jax.random.normal(jax.random.key(0), (3, 4, 4, 4)), jax.random.normal(jax.random.key(1), (3, 6))
    second = jax.random.normal(jax.random.key(2), (3, 6)) if told_twice else None
    variables = randomized(block, x, embedding, second)
    expected = modulated(variables["params"], embedding, second, x, **settings)
    np.testing.assert_allclose(jax.jit(block.apply)(variables, x, embedding, second), expected, rtol=1e-5, atol=1e-5)


def test_a_second_time_with_a_branch_of_its_own_reaches_every_block_without_the_label(randomized):
    """CTM's code for ImageNet-64: layers for s up to each block; the label is in the branch of t alone."""
    module = tiny(num_classes=5, second_time=True).clone(second_branch=True)
    x, t, labels = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.3, 0.8]), jnp.array([1, 4])
    params = randomized(module, x, t, labels, t)["params"]
    blocks = blocks_of_branch(params)

    apply = jax.jit(lambda params, s, labels: module.apply({"params": params}, x, t, labels, s))
    assert np.abs(apply(params, t + 0.1, labels) - apply(params, t, labels)).max() > 1e-3
    assert np.abs(apply(params, t, labels[::-1]) - apply(params, t, labels)).max() > 1e-3
    deaf = {
        name: {**layer, "affine": jax.tree.map(jnp.zeros_like, layer["affine"])} if name in blocks else layer
        for name, layer in params.items()
    }
    np.testing.assert_array_equal(apply(deaf, t, labels[::-1]), apply(deaf, t, labels))


def test_dropout_only_where_it_is_asked_for():
    def dropped(resolutions):
        rates = {}

        def record(layer, arguments, keywords, context):
            if isinstance(context.module, nn.Dropout):
                rates[context.module.path[0]] = context.module.rate
            return layer(*arguments, **keywords)

        with nn.intercept_methods(record):
            shapes = shapes_of(tiny(dropout=0.3, dropout_resolutions=resolutions))
        assert set(rates) == {name for name, layer in shapes.items() if "affine" in layer}
        assert set(rates.values()) <= {0.0, 0.3}
        return {name for name, rate in rates.items() if rate}

    assert len(dropped(None)) == 10
    assert dropped((4,)) == {name for name in dropped(None) if "4x4" in name}
    assert dropped(()) == set()


def test_null_class_and_absent_augmentation_contribute_nothing(randomized):
    module = tiny(num_classes=3, augment_features=2)
    x, t = jax.random.normal(jax.random.key(0), (4, 8, 8, 3)), jnp.array([0.1, 0.2, 0.3, 0.4])
    labels = jnp.array([0, 1, 2, 3])
    params = randomized(module, x, t, labels)
    value = jax.jit(lambda params, augment: module.apply(params, x, t, labels, augment=augment))
    base = value(params, jnp.zeros((4, 2)))
    np.testing.assert_allclose(base, value(params, None), rtol=1e-5, atol=1e-5)
    assert jnp.abs(value(params, jnp.ones((4, 2))) - base).max() > 1e-3
    params["params"]["map_label"]["kernel"] *= 0
    changed = jnp.abs(value(params, jnp.zeros((4, 2))) - base).max((1, 2, 3))
    assert jnp.all(changed[:3] > 1e-4)
    assert changed[3] == 0


@pytest.mark.parametrize(
    ("settings", "augment", "message"),
    [
        ({"multipliers": (1, 1, 1, 1, 1)}, None, "not divisible by 16"),
        ({"double_norm": True, "adaptive_scale": False}, None, "adaptive_scale=True, which is False"),
        ({"augment_features": 9}, jnp.zeros((1, 4)), "augment must have 9 features, got 4"),
    ],
)
def test_impossible_settings_are_refused(settings, augment, message):
    init = partial(tiny(**settings).init, augment=augment)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))


def test_single_convolutions_may_resample_and_the_output_have_other_channels(randomized):
    """Guided diffusion with `resblock_updown=False`: stride 2 down, repetition and a convolution up."""
    module = tiny(attention_resolutions=()).clone(resampling_blocks=False, out_channels=6)
    shapes = shapes_of(module)
    for name, width in (("enc_4x4_down", 8), ("dec_8x8_up", 16)):
        assert jax.tree.map(jnp.shape, shapes[name]) == {"kernel": (3, 3, width, width), "bias": (width,)}
    x, t = jax.random.normal(jax.random.key(0), (1, 8, 8, 3)), jnp.ones(1)
    variables = randomized(module, x, t)
    seen: dict[str, Any] = {}

    def keep(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if context.module.name in ("enc_4x4_down", "dec_8x8_up"):
            seen[context.module.name] = args[0], out
        return out

    with nn.intercept_methods(keep):
        assert module.apply(variables, x, t).shape == (1, 8, 8, 6)
    given, halved = seen["enc_4x4_down"]
    assert (given.shape, halved.shape) == ((1, 8, 8, 8), (1, 4, 4, 8))
    # PyTorch pads one pixel on every side, so that each window is centred on an even pixel.
    kernel, bias = (variables["params"]["enc_4x4_down"][part] for part in ("kernel", "bias"))
    window = jnp.pad(given, ((0, 0), (1, 1), (1, 1), (0, 0)))[0, 2:5, 4:7]
    np.testing.assert_allclose(halved[0, 1, 2], jnp.einsum("hwi,hwio->o", window, kernel) + bias, rtol=1e-4, atol=1e-4)
    enlarged, _ = seen["dec_8x8_up"]
    np.testing.assert_array_equal(enlarged[:, ::2, ::2], enlarged[:, 1::2, 1::2])
