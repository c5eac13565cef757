from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.edm2 import EDM2_SIZES, edm2, edm2_scm
from models.edm2_blocks import (
    EDM2Block,
    MPConv,
    fourier_phases,
    mp_add,
    mp_concat,
    mp_fourier,
    mp_positional,
    mp_silu,
    mp_sum,
    normalize,
    project_weights,
    projected,
)
from models.embeddings import fourier_frequencies
from models.pixel_norm import pixel_norm
from models.remat import keep_all, keep_nothing

X, T = jax.random.normal(jax.random.key(0), (4, 4, 4, 3)), jnp.array([0.1, 0.4, 0.8, 1.5])
LABELS = jnp.array([0, 1, 2, 3])


def tiny(form=edm2, **settings):
    sizes = {"channels": 8, "multipliers": (1, 2), "blocks": 0, "attention_resolutions": (), "channels_per_head": 4}
    return form(**(sizes | settings))


def applied(layer, params, *inputs):
    """Output of a layer under its own parameters; in a function, so that it has one type."""
    return layer.apply({"params": params}, *inputs)


def rms(a):
    return float(jnp.sqrt(jnp.mean(a * a)))


# ---- Layers ----------------------------------------------------------------------------------------------------------


def test_layers_keep_the_magnitude():
    a, b = (jax.random.normal(key, (64, 8, 8, 96)) for key in jax.random.split(jax.random.key(0)))
    few = b[..., :24]
    assert rms(mp_silu(a)) == pytest.approx(1, abs=2e-3)
    for balance in (0.3, 0.5, 0.9):
        assert rms(mp_sum(a, b, balance)) == pytest.approx(1, abs=2e-3)
    for gain in (0.0, 0.3, -2.0):
        assert rms(mp_add(a, b, jnp.float32(gain))) == pytest.approx(1, abs=2e-3)
    both = mp_concat(a, few)
    assert rms(both) == pytest.approx(1, abs=2e-3)
    np.testing.assert_allclose(jnp.sum(both[..., :96] ** 2), jnp.sum(both[..., 96:] ** 2), rtol=5e-3)
    t = jnp.linspace(-2, 1, 512)
    assert rms(mp_fourier(t, fourier_frequencies(512, 1.0), fourier_phases(256))) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(jnp.mean(mp_positional(t, 64) ** 2, -1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
def test_a_layer_keeps_the_magnitude_whatever_the_length_of_its_weights(kernel):
    layer, x = MPConv(32, kernel), jax.random.normal(jax.random.key(0), (64, 5, 5, 64))
    weight = jax.random.normal(jax.random.key(1), (*kernel, 64, 32))
    value = applied(layer, {"weight": weight}, x)
    # Zeros come in at the border.
    assert rms(value[:, 1:-1, 1:-1]) == pytest.approx(1, abs=0.01)

    longer = applied(layer, {"weight": 50 * weight}, x, -0.5)
    short = 1e-4 / jnp.sqrt(jnp.mean(weight**2, tuple(range(weight.ndim - 1))))
    np.testing.assert_allclose(longer, -0.5 * value * (1 + short) / (1 + short / 50), rtol=1e-5, atol=1e-5)


def test_normalize_divides_by_epsilon_plus_root_mean_square():
    a = jnp.array([[3.0, 4.0], [0.0, 0.0], [3e-4, 4e-4]])
    root = np.sqrt([[12.5], [0.0], [12.5e-8]])
    np.testing.assert_allclose(normalize(a, -1), a / (1e-4 + root), rtol=1e-5)


def test_normalize_has_a_derivative_at_zero():
    zero, direction = jnp.zeros(3), jnp.array([1.0, -2.0, 0.5])
    f = partial(normalize, axis=-1)
    np.testing.assert_allclose(jax.jvp(f, (zero,), (direction,))[1], 1e4 * direction, rtol=1e-5)
    np.testing.assert_allclose(jax.vjp(f, zero)[1](direction)[0], 1e4 * direction, rtol=1e-5)


def test_frequencies_and_phases_are_unrelated():
    frequencies, phases = fourier_frequencies(4096, 1.0), fourier_phases(2048)
    assert 0 <= min(phases) < max(phases) < 1
    assert np.std(phases) == pytest.approx(12**-0.5, rel=0.03)
    assert abs(np.corrcoef(frequencies, phases)[0, 1]) < 0.07


# ---- Weights ---------------------------------------------------------------------------------------------------------


def stretched(params, generator):
    """Parameters whose weights have any length for each output channel."""
    return jax.tree.map(lambda a: a * generator.uniform(0.3, 3.0, a.shape[-1:]), params)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_gradient_with_respect_to_stored_weights(kernel):
    generator = np.random.default_rng(0)
    layer, x = MPConv(2, kernel, jnp.float64), jnp.asarray(generator.standard_normal((2, 3, 3, 4)))
    weight = stretched(jnp.asarray(generator.standard_normal((*kernel, 4, 2))), generator)
    direction = jnp.asarray(generator.standard_normal(weight.shape))

    def loss(weight):
        return jnp.sum(jnp.sin(applied(layer, {"weight": weight}, x)))

    gradient, h = jax.grad(loss)(weight), 1e-5
    difference = (loss(weight + h * direction) - loss(weight - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), difference, rtol=1e-7)
    # Only the direction of a weight counts, but for the 1e-4: gradients are orthogonal to it.
    axes = tuple(range(weight.ndim - 1))
    along, size = jnp.sum(gradient * weight, axes), jnp.sqrt(jnp.sum(gradient**2, axes) * jnp.sum(weight**2, axes))
    assert jnp.all(jnp.abs(along) < 1e-3 * size)


@pytest.mark.parametrize("form", [edm2, edm2_scm])
def test_projected_weights_have_unit_size_and_change_nothing(form, randomized):
    module = tiny(form, num_classes=3)
    params = stretched(randomized(module, X, T, LABELS), np.random.default_rng(1))
    once = project_weights(params)
    for path, a in jax.tree_util.tree_leaves_with_path(once):
        if path[-1].key == "weight":
            np.testing.assert_allclose(jnp.sqrt(jnp.mean(a * a, tuple(range(a.ndim - 1)))), 1.0, atol=3e-3)
    assert once["params"]["out_gain"] == params["params"]["out_gain"]
    assert once["params"]["dec_2x2_in0"]["emb_gain"] == params["params"]["dec_2x2_in0"]["emb_gain"]

    value = jax.jit(lambda params: module.apply(params, X, T, LABELS))
    before, after, again = value(params), value(once), value(project_weights(once))
    scale = float(jnp.abs(before).max())
    # The 1e-4 in the norm counts for as much as weights were shorter than one, and then no more.
    assert jnp.abs(after - before).max() < 2e-2 * scale
    np.testing.assert_allclose(again, after, atol=1e-5 * scale)


def test_the_last_link_of_an_optimizer_lands_on_projected_weights(randomized):
    params, generator = randomized(tiny(), X, T), np.random.default_rng(1)
    gradient = jax.tree.map(lambda a: jnp.asarray(generator.standard_normal(a.shape), a.dtype), params)
    landed = []
    for optimizer in (optax.sgd(0.1), optax.chain(optax.sgd(0.1), projected())):
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        landed.append(optax.apply_updates(params, updates))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), landed[1], project_weights(landed[0]))
    assert jnp.abs(landed[0]["params"]["out_conv"]["weight"] - landed[1]["params"]["out_conv"]["weight"]).max() > 0.1


def test_projection_of_nothing_is_refused():
    params = {"params": {"conv": {"kernel": jnp.ones((2, 2))}}}
    with pytest.raises(ValueError, match="no parameter named 'weight'"):
        project_weights(params)
    with pytest.raises(ValueError, match="needs the parameters"):
        projected().update(params, projected().init(params))


# ---- Network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "millions"), [("XS", 125), ("S", 280), ("M", 498), ("L", 777), ("XL", 1100), ("XXL", 1500)]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_parameter_counts_of_the_published_networks(size, millions, channels):
    module = edm2(EDM2_SIZES[size], num_classes=1000)
    inputs = jnp.zeros((1, 64, 64, channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert sum(a.size for a in jax.tree.leaves(shapes)) == pytest.approx(1e6 * millions, rel=0.02)


def test_layers_are_named_by_resolution():
    module = tiny(edm2_scm, blocks=1, attention_resolutions=(4,), num_classes=3, second_time=True, guided=True)
    params = jax.eval_shape(module.init, jax.random.key(0), X, T, LABELS, T, T)["params"]
    assert set(params) == {
        *("emb_noise", "emb_s", "emb_label", "emb_w", "emb_w_gain"),
        *("out_conv", "out_gain", "enc_4x4_conv", "enc_4x4_block0"),
        *("enc_2x2_down", "enc_2x2_block0", "dec_2x2_in0", "dec_2x2_in1", "dec_2x2_block0", "dec_2x2_block1"),
        *("dec_4x4_up", "dec_4x4_block0", "dec_4x4_block1"),
    }
    attention = {name for name, layer in params.items() if "gain" not in name and "attn_qkv" in layer}
    assert attention == {"enc_4x4_block0", "dec_2x2_in0", "dec_4x4_block0", "dec_4x4_block1"}
    plain = {"emb_gain", "conv_res0", "emb_linear", "conv_res1"}
    assert set(params["dec_2x2_in1"]) == plain
    assert set(params["dec_2x2_block0"]) == plain | {"conv_skip"}


def test_output_starts_at_zero_and_magnitudes_inside_at_one():
    module = tiny(channels=32, num_classes=5)
    x, t, labels = jax.random.normal(jax.random.key(0), (8, 8, 8, 3)), jnp.linspace(-1, 1, 8), jnp.arange(8) % 5

    @jax.jit
    def magnitudes(key):
        params = module.init(key, x, t, labels)
        out, state = module.apply(params, x, t, labels, capture_intermediates=True, mutable=["intermediates"])
        return out, jax.tree.map(lambda a: jnp.sqrt(jnp.mean(a * a)), state["intermediates"])

    out, inside = magnitudes(jax.random.key(0))
    np.testing.assert_array_equal(out, jnp.zeros_like(x))
    blocks = {name: layer["__call__"][0] for name, layer in inside.items() if name.startswith(("enc", "dec", "emb"))}
    assert len(blocks) == 9
    for name, size in blocks.items():
        assert 0.8 < size < 1.2, name


def test_null_class_is_a_vector_of_zeros(randomized):
    module = tiny(num_classes=3)
    params = randomized(module, X, T, LABELS)
    value = jax.jit(lambda params: module.apply(params, X, T, LABELS))
    base = value(params)
    params["params"]["emb_label"]["weight"] *= -1.0
    changed = jnp.abs(value(params) - base).max((1, 2, 3))
    assert jnp.all(changed[:3] > 1e-3)
    assert changed[3] == 0


def block(double_norm):
    return EDM2Block(8, True, None, 0, nn.dot_product_attention, double_norm, 0.0, True, jnp.float32)


def captured(module, params, *inputs):
    """Output of the first convolution and input of the second one, read off where dropout stands."""
    _, state = module.apply(params, *inputs, capture_intermediates=True, mutable=["intermediates"])
    inside = state["intermediates"]
    return inside["conv_res0"]["__call__"][0], inside["Dropout_0"]["__call__"][0]


@pytest.mark.parametrize("double_norm", [False, True])
def test_modulation_of_a_block(double_norm, randomized):
    module = block(double_norm)
    x, embedding = jax.random.normal(jax.random.key(0), (2, 3, 3, 8)), jax.random.normal(jax.random.key(1), (2, 5))
    params = randomized(module, x, embedding)
    h, modulated = captured(module, params, x, embedding)
    linear = applied(MPConv(8), params["params"]["emb_linear"], embedding)[:, None, None, :]
    scale = 1 + params["params"]["emb_gain"] * linear
    expected = pixel_norm(h) * pixel_norm(scale) if double_norm else h * scale
    np.testing.assert_allclose(modulated, mp_silu(expected), rtol=1e-5, atol=1e-5)


def test_dropout_only_at_some_resolutions(randomized):
    changed = {}
    for where in ((), (2,), (4,), None):
        module = tiny(dropout=0.5, dropout_resolutions=where)
        params = randomized(module, X, T)
        rngs = {"dropout": jax.random.key(0)}
        train = partial(module.apply, params, X, T, train=True, rngs=rngs, mutable=["intermediates"])
        _, state = jax.jit(partial(train, capture_intermediates=lambda layer, _: isinstance(layer, nn.Dropout)))()
        outputs = {name: layer["Dropout_0"]["__call__"][0] for name, layer in state["intermediates"].items()}
        changed[where] = {name for name, h in outputs.items() if jnp.mean(h == 0) > 0.2}
    low = {"enc_2x2_down", "dec_2x2_in0", "dec_2x2_in1", "dec_2x2_block0"}
    high = {"dec_4x4_up", "dec_4x4_block0"}
    assert changed == {(): set(), (2,): low, (4,): high, None: low | high}


def test_recomputation_changes_nothing(randomized):
    module = tiny()
    params = randomized(module, X, T)

    def gradient(module, params):
        return jax.grad(lambda params: jnp.sum(jnp.sin(module.apply(params, X, T))))(params)

    kept, recomputed = (
        jax.jit(partial(gradient, module.clone(remat=remat)))(params) for remat in (keep_all, keep_nothing)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), recomputed, kept)


def test_frequencies_can_be_replaced_and_are_no_parameters():
    module = tiny()
    imported = module.clone(noise_embedding=partial(mp_fourier, frequencies=(0.5,) * 8, phases=(0.1,) * 8))
    a, b = (jax.eval_shape(m.init, jax.random.key(0), X, T) for m in (module, imported))
    assert jax.tree.map(jnp.shape, a) == jax.tree.map(jnp.shape, b)
    assert set(a) == {"params"}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (tiny(multipliers=(1, 1, 1, 1)), "4x4 pixels is not divisible by 8"),
        (tiny(channels_per_head=3), "dec_2x2_in0 attends over 8 channels.*channels_per_head=3"),
    ],
)
def test_impossible_settings_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.init(jax.random.key(0), X, T))
