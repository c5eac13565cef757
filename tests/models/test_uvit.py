import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.embeddings import sinusoidal
from models.remat import keep_nothing
from models.uvit import UViT
from models.uvit_blocks import ResidualBlock, TransformerBlock


def shapes_of(module, size=64):
    labels = jnp.zeros(1, int) if module.num_classes else None
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros(1), labels)
    return shapes["params"]


def count(shapes):
    return sum(a.size for a in jax.tree.leaves(shapes))


def test_parameter_count_of_the_published_network():
    shapes = shapes_of(UViT(num_classes=1000))
    assert count(shapes) == pytest.approx(394e6, rel=0.02)

    def residual(c, skip):
        return 2 * c + (9 * c * c + c) + 2 * c * 1025 + 2 * c + (9 * c * c + c) + 2 * c * skip

    w = 1024
    transformer = 2 * w + (w + 1) * 4 * w + 1025 * 8 * w + (4 * w + 1) * w + (w + 1) * 3 * w + 3 * w // 4 + (w + 1) * w
    resampling = 9 * 2 * (256 * 512 + 512 * 1024) + (512 + 1024) + (512 + 256)
    ends = (27 * 256 + 256) + 2 * 256 + (9 * 256 * 3 + 3)
    embedding = (257 + 1025) * 1024 + 1001 * 1024
    convolutions = 3 * sum(residual(c, skip) for c in (256, 512) for skip in (0, 1))
    assert count(shapes) == 16 * (transformer) + 256 * w + convolutions + resampling + ends + embedding

    # The other readings that the docstring counts, in millions.
    small_kernels = count(shapes) - 8 * 2 * (256 * 512 + 512 * 1024)
    concatenated = 3 * sum(9 * c * c + 2 * c * c + c for c in (256, 512))
    assert round(small_kernels / 1e6, 1) == 384.7
    assert round((small_kernels + concatenated) / 1e6, 1) == 395.5
    assert round((count(shapes) - 16 * 1025 * (8 * w - 4 * w)) / 1e6, 1) == 328.0


@pytest.mark.parametrize(
    ("doubled", "billions"),
    [({"width": 2048}, 1.14), ({"depth": 32}, 0.73), ({"width": 2048, "channels": 512}, 1.28)],
)
def test_no_simple_doubling_is_the_large_network(doubled, billions):
    parameters = count(shapes_of(UViT(num_classes=1000, **doubled)))
    assert round(parameters / 1e9, 2) == billions
    assert parameters != pytest.approx(1.23e9, rel=0.02)


def test_layers_and_their_shapes():
    module = UViT(channels=8, multipliers=(1, 3), blocks=2, width=12, depth=5, heads=2, embedding_width=7)
    shapes = shapes_of(module, size=16)
    blocks = {f"{way}{level}_block{i}" for way in ("down", "up") for level in (0, 1) for i in (0, 1)}
    resampling = {"down0_conv", "down1_conv", "up0_conv", "up1_conv"}
    assert set(shapes) == blocks | resampling | {
        *("in_conv", "out_norm", "out_conv", "conditioning", "transformer", "positions")
    }
    kernels = {name: shapes[name]["kernel"].shape[2:] for name in resampling}
    assert kernels == {"down0_conv": (8, 24), "down1_conv": (24, 12), "up1_conv": (12, 24), "up0_conv": (24, 8)}
    assert all(("norm_skip" in shapes[name]) == name.startswith("up") for name in blocks)
    assert shapes["positions"].shape == (4, 4, 12)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(shapes["transformer"])} == {5}


def plain_uvit(params, heads, x, t, labels, s, w):
    """One resolution above the transformer, written out layer by layer, with a loop where the module scans."""

    def linear(p, h):
        return h @ p["kernel"] + p["bias"]

    def conv(p, h):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(h, p["kernel"], (1, 1), "SAME", dimension_numbers=dimensions) + p["bias"]

    def standard(h, axes):
        return (h - h.mean(axes, keepdims=True)) / jnp.sqrt(h.var(axes, keepdims=True) + 1e-6)

    def group_norm(p, h):
        grouped = standard(h.reshape(*h.shape[:3], h.shape[-1] // 4, 4), (1, 2, 4))
        return grouped.reshape(h.shape) * p["scale"] + p["bias"]

    def layer_norm(p, h):
        return standard(h, -1) * p["scale"] + p.get("bias", 0)

    def scalar(p, value):
        return linear(p["linear1"], jax.nn.silu(linear(p["linear0"], sinusoidal(value, 256))))

    def modulation(p, axes):
        scale, shift = jnp.split(jnp.expand_dims(linear(p["affine"], c), axes), 2, axis=-1)
        return 1 + scale, shift

    def residual(p, h, skip=None):
        start, h = h, group_norm(p["norm0"], h)
        if skip is not None:
            h = (h + group_norm(p["norm_skip"], skip)) / np.sqrt(2)
        h = conv(p["conv0"], jax.nn.silu(h))
        scale, shift = modulation(p, (1, 2))
        return start + conv(p["conv1"], jax.nn.silu(group_norm(p["norm1"], h) * scale + shift))

    def transform(p, h):
        scale, shift = modulation(p, 1)
        hidden = jax.nn.silu(linear(p["mlp0"], layer_norm(p["norm0"], h)))
        h += linear(p["mlp1"], hidden * scale + shift)
        qkv = jnp.split(linear(p["qkv"], layer_norm(p["norm1"], h)), 3, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in qkv)
        q, k = layer_norm(p["norm_q"], q), layer_norm(p["norm_k"], k)
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]), axis=-1)
        return h + linear(p["proj"], jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(h.shape))

    embed = params["conditioning"]
    c = scalar(embed["t"], t) + scalar(embed["s"], s) + scalar(embed["w"], w)
    c = jax.nn.silu(c + embed["labels"]["embedding"][labels])
    skip = h = residual(params["down0_block0"], conv(params["in_conv"], x), None)
    h = conv(params["down0_conv"], (h[:, ::2, ::2] + h[:, 1::2, ::2] + h[:, ::2, 1::2] + h[:, 1::2, 1::2]) / 4)
    h, grid = (h + params["positions"]).reshape(len(h), -1, h.shape[-1]), h.shape
    for i in range(len(params["transformer"]["mlp0"]["bias"])):
        h = transform(jax.tree.map(lambda a, i=i: a[i], params["transformer"]), h)
    h = conv(params["up0_conv"], h.reshape(grid))
    h = residual(params["up0_block0"], jnp.kron(h, jnp.ones((1, 2, 2, 1))), skip)
    return conv(params["out_conv"], jax.nn.silu(group_norm(params["out_norm"], h)))


def sharpened(params, factor):
    """Parameters whose queries and keys are longer; those of random parameters attend almost everywhere alike."""
    transformer = params["params"]["transformer"]
    norms = {name: jax.tree.map(lambda a: factor * a, transformer[name]) for name in ("norm_q", "norm_k")}
    return {"params": params["params"] | {"transformer": transformer | norms}}


def test_equals_the_network_written_out(uvit):
    inputs, params = (uvit.x, uvit.t, uvit.labels, uvit.s, uvit.w), sharpened(uvit.params, 20.0)
    expected = plain_uvit(params["params"], 2, *inputs)
    np.testing.assert_allclose(uvit.value(params, *inputs), expected, rtol=1e-4, atol=1e-5)


def test_blocks_on_the_way_up_meet_those_of_the_way_down_in_reverse():
    module = UViT(channels=4, multipliers=(1, 2), blocks=2, width=4, depth=1, heads=1, embedding_width=4)
    written: dict[int, str] = {}
    met: dict[str, str | None] = {}

    def record(layer, arguments, keywords, context):
        out = layer(*arguments, **keywords)
        if isinstance(context.module, ResidualBlock) and context.method_name == "__call__":
            name = str(context.module.name)
            written[id(out)] = name
            met[name] = written.get(id(arguments[2])) if len(arguments) > 2 else None
            kept.append(out)
        return out

    kept = []  # an id is of one array only as long as the array lives
    with nn.intercept_methods(record):
        shapes_of(module, size=8)
    assert {name: met[name] for name in met if name.startswith("up")} == {
        **{"up1_block0": "down1_block1", "up1_block1": "down1_block0"},
        **{"up0_block0": "down0_block1", "up0_block1": "down0_block0"},
    }


def test_initialization_is_the_default_of_flax_and_the_output_zero():
    module = UViT(channels=32, multipliers=(1,), blocks=1, width=64, depth=2, heads=2, embedding_width=64)
    x, t = jnp.ones((1, 4, 4, 3)), jnp.ones(1)
    variables = jax.jit(module.init)(jax.random.key(0), x, t)
    params = variables["params"]
    residual, transformer = params["up0_block0"], params["transformer"]
    for layer in (residual["conv1"], transformer["mlp1"], transformer["proj"], params["out_conv"]):
        assert not any(jnp.any(a) for a in jax.tree.leaves(layer))
    for layer, fan in ((residual["conv0"], 9 * 32), (transformer["qkv"], 64), (transformer["affine"], 64)):
        np.testing.assert_allclose(layer["kernel"].std() * np.sqrt(fan), 1.0, rtol=0.1)
        assert not jnp.any(layer["bias"])
    np.testing.assert_allclose(params["positions"].std(), 0.01, rtol=0.2)
    kernel = transformer["mlp0"]["kernel"]
    assert jnp.all(kernel[0] != kernel[1])
    assert not np.any(np.asarray(jax.jit(module.apply)(variables, x, t)))


def test_half_precision_is_that_of_every_block_and_dropout_that_of_the_transformer_alone(uvit):
    dtypes, rates = {}, {}

    def record(layer, arguments, keywords, context):
        out = layer(*arguments, **keywords)
        if isinstance(context.module, ResidualBlock | TransformerBlock) and context.method_name == "__call__":
            dtypes[context.module.name] = jax.tree.leaves(out)[0].dtype
        if isinstance(context.module, nn.Dropout):
            rates[context.module.path[0]] = context.module.rate
        return out

    module = uvit.module.clone(dtype=jnp.bfloat16)
    with nn.intercept_methods(record):
        jax.eval_shape(module.apply, uvit.params, uvit.x, uvit.t, uvit.labels, uvit.s, uvit.w)
    assert dtypes == dict.fromkeys(("down0_block0", "transformer", "up0_block0"), jnp.dtype("bfloat16"))
    assert rates == {"transformer": 0.4}


def test_the_program_does_not_grow_with_depth(uvit):
    def program(depth):
        module = uvit.module.clone(depth=depth)
        inputs = uvit.x, uvit.t, uvit.labels, uvit.s, uvit.w
        params = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        return len(str(jax.make_jaxpr(module.apply)(params, *inputs)).splitlines())

    assert program(2) == program(9)


def test_rematerialization_changes_no_number(uvit):
    def loss(params, module):
        inputs, key = (uvit.x, uvit.t, uvit.labels, uvit.s, uvit.w), {"dropout": jax.random.key(3)}
        return jnp.sum(module.apply(params, *inputs, train=True, rngs=key) ** 2)

    kept, recomputed = (
        jax.jit(jax.grad(lambda params, module=module: loss(params, module)))(uvit.params)
        for module in (uvit.module, uvit.module.clone(remat=keep_nothing))
    )
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()))


def test_attention_is_the_callable_that_was_passed(uvit):
    # Queries and keys of zero attend everywhere alike.
    average = uvit.module.clone(attention=lambda q, k, v: jnp.broadcast_to(v.mean(1, keepdims=True), q.shape))
    inputs = uvit.x, uvit.t, uvit.labels, uvit.s, uvit.w
    expected = uvit.value(sharpened(uvit.params, 0.0), *inputs)
    np.testing.assert_allclose(jax.jit(average.apply)(uvit.params, *inputs), expected, rtol=1e-4, atol=1e-5)
    assert jnp.abs(expected - uvit.value(sharpened(uvit.params, 20.0), *inputs)).max() > 1e-3


def test_time_scale_multiplies_both_times(uvit):
    rest = uvit.labels, uvit.s, uvit.w
    scaled = jax.jit(uvit.module.clone(time_scale=4.0).apply)(uvit.params, uvit.x, uvit.t, *rest)
    expected = uvit.value(uvit.params, uvit.x, 4 * uvit.t, uvit.labels, 4 * uvit.s, uvit.w)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multipliers": (1, 1, 1, 1)}, "8x8 pixels is not divisible by 16"),
        ({"width": 10, "heads": 4}, "width=10 is not divisible by heads=4"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(UViT(**settings), size=8)
