from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.embeddings import fourier
from models.unet import ddpmpp, ncsnpp
from tests.models.branches import blocks_of_branch


def count_parameters(module, labels=None):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1), labels)
    return sum(a.size for a in jax.tree.leaves(shapes))


def expected_parameters(channels=128, width=256, blocks=4, levels=3, noise=128, residual=False, classes=0, augment=0):
    """EDM's CIFAR-10 network counted by hand: multipliers (2, 2, 2), attention on the second of three levels."""
    embedding = 4 * channels

    def conv(kernel, a, b):
        return kernel * kernel * a * b + b

    def block(a, b, resample=False, attention=False):
        count = 2 * a + conv(3, a, b) + embedding * b + b + 2 * b + conv(3, b, b)
        count += conv(1, a, b) if resample or a != b else 0
        return count + (2 * b + conv(1, b, 3 * b) + conv(1, b, b) if attention else 0)

    count = noise * embedding + embedding + embedding * embedding + embedding
    count += (classes * noise + noise if classes else 0) + augment * noise
    count += conv(3, 3, channels)
    skips, previous = [channels], channels
    for level in range(levels):
        if level:
            count += block(width, width, resample=True)
            count += conv(3, 3 if level == 1 else width, width) if residual else 0
            skips.append(width)
        for _ in range(blocks):
            count += block(previous, width, attention=level == 1)
            previous = width
            skips.append(width)
    count += block(width, width, attention=True) + block(width, width)
    for level in reversed(range(levels)):
        count += block(width, width, resample=True) if level < levels - 1 else 0
        for i in range(blocks + 1):
            count += block(width + skips.pop(), width, attention=level == 1 and i == blocks)
    return count + 2 * width + conv(3, width, 3)


def test_parameter_counts_of_the_published_networks():
    label = jnp.zeros(1, jnp.int32)
    assert count_parameters(ddpmpp()) == expected_parameters() == 55_732_739
    assert count_parameters(ncsnpp()) == expected_parameters(noise=256, residual=True) == 56_395_523
    conditional = ddpmpp(num_classes=10, augment_features=9)
    assert count_parameters(conditional, label) == expected_parameters(classes=10, augment=9)


def tiny(form, **settings):
    return form(channels=8, multipliers=(1, 2), blocks=1, attention_resolutions=(4,), dropout=0.0, **settings)


def test_layers_are_named_by_resolution():
    shapes = jax.eval_shape(tiny(ncsnpp).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
    assert set(shapes["params"]) == {
        *("map_layer0", "map_layer1", "enc_8x8_conv", "enc_8x8_block0"),
        *("enc_4x4_down", "enc_4x4_aux_residual", "enc_4x4_block0"),
        *("dec_4x4_in0", "dec_4x4_in1", "dec_4x4_block0", "dec_4x4_block1"),
        *("dec_8x8_up", "dec_8x8_block0", "dec_8x8_block1", "dec_8x8_aux_norm", "dec_8x8_aux_conv"),
    }
    with_attention = {name for name, layer in shapes["params"].items() if "self_attention" in layer}
    assert with_attention == {"enc_4x4_block0", "dec_4x4_in0", "dec_4x4_block1"}


def test_initialization_is_that_of_edm():
    module = tiny(ddpmpp)

    def kernels(key):
        params = module.init(key, jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
        attention = params["dec_4x4_in0"]["self_attention"]
        layers = params["enc_8x8_conv"], params["dec_8x8_aux_conv"], attention["qkv"], attention["proj"]
        return [layer["kernel"] for layer in layers]

    fans = (9 * 11, 9 * 11, 16 + 48, 16 + 16)
    weights = (1.0, 1e-5, np.sqrt(0.2), 1e-5)
    for kernel, fan, weight in zip(jax.jit(kernels)(jax.random.key(0)), fans, weights, strict=True):
        bound = weight * np.sqrt(6 / fan)
        assert 0.9 * bound < jnp.abs(kernel).max() <= 1.0001 * bound


def test_null_class_and_absent_augmentation_contribute_nothing(randomized):
    module = tiny(ddpmpp, num_classes=3, augment_features=2)
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


def test_frequencies_can_be_replaced_and_are_no_parameters():
    module, x, t = tiny(ncsnpp), jnp.ones((1, 8, 8, 3)), jnp.ones(1)
    imported = module.clone(noise_embedding=partial(fourier, frequencies=(0.5,) * 8))
    a, b = (jax.eval_shape(m.init, jax.random.key(0), x, t) for m in (module, imported))
    assert jax.tree.map(jnp.shape, a) == jax.tree.map(jnp.shape, b)
    assert set(a) == {"params"}


@pytest.mark.parametrize(
    ("module", "augment", "message"),
    [
        (tiny(ddpmpp).clone(multipliers=(1, 1, 1, 1, 1)), None, "not divisible by 16"),
        (tiny(ddpmpp).clone(resample_filter=(1, 2, 1)), None, "even number of taps"),
        (tiny(ddpmpp, augment_features=9), jnp.zeros((1, 4)), "augment must have 9 features, got 4"),
    ],
)
def test_impossible_settings_are_refused(module, augment, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), augment=augment))


@pytest.mark.parametrize("module", [ddpmpp, ncsnpp])
def test_with_a_half_precision_body_every_block_is_in_half_precision(module):
    """One float32 constant would lift all that is added up after it."""
    network = module(channels=8, blocks=1, num_classes=0, dtype=jnp.bfloat16)
    x, t = jnp.zeros((1, 32, 32, 3)), jnp.zeros(1)
    shapes = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), x, t, capture_intermediates=True)[1])
    blocks = {
        name: layer["__call__"][0].dtype
        for name, layer in shapes["intermediates"].items()
        if name.startswith(("enc", "dec")) and "aux" not in name
    }
    assert len(blocks) > 10
    assert set(blocks.values()) == {jnp.dtype("bfloat16")}, blocks


def test_another_number_of_channels_comes_out_of_the_same_body():
    shapes = []
    for channels in (0, 6):
        module = ddpmpp(channels=8, multipliers=(1,), blocks=1).clone(out_channels=channels)
        x = jnp.zeros((2, 8, 8, 3))
        out, params = jax.eval_shape(module.init_with_output, jax.random.key(0), x, jnp.zeros(2))
        assert out.shape == (2, 8, 8, channels or 3)
        shapes.append(params["params"])
    one, two = shapes
    assert two.pop("dec_8x8_aux_conv") != one.pop("dec_8x8_aux_conv")
    assert one == two


def test_a_second_time_with_a_branch_of_its_own_reaches_every_block(randomized):
    """CTM's code: layers for s up to each block, where they are added, and the label in both branches."""
    shape: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
    alone = ddpmpp(**shape, num_classes=5, dropout=0.0)
    module = alone.clone(second_time=True, second_branch=True)
    x, t, labels = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.3, 0.8]), jnp.array([1, 5])
    params = randomized(module, x, t, labels, t)["params"]
    blocks_of_branch(params)

    apply = jax.jit(lambda params, s, labels: module.apply({"params": params}, x, t, labels, s))
    out = apply(params, t, labels)
    assert np.abs(apply(params, t + 0.1, labels) - out).max() > 1e-3
    # Of the branch without its last layers nothing is left, and the network is the one that takes no s.
    silent = {
        name: {part: jax.tree.map(jnp.zeros_like, leaf) if part == "affine_s" else leaf for part, leaf in layer.items()}
        for name, layer in params.items()
    }
    without = {
        name: {part: leaf for part, leaf in layer.items() if part != "affine_s"}
        for name, layer in params.items()
        if name not in ("map_layer0_s", "map_layer1_s")
    }
    expected = jax.jit(lambda params: alone.apply({"params": params}, x, t, labels))(without)
    np.testing.assert_allclose(apply(silent, t + 0.1, labels), expected, rtol=1e-6, atol=1e-6)
    # The label is in the branch of s too: without that of t, it still counts.
    deaf = {
        name: {**layer, "affine": silent[name]["affine_s"]} if "affine" in layer else layer
        for name, layer in params.items()
    }
    assert np.abs(apply(deaf, t, labels) - apply(deaf, t, labels[::-1])).max() > 1e-3
