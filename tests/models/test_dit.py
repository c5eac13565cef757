import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dit import SIZES, DiT, patchify, unpatchify
from models.embeddings import grid_positions, sinusoidal
from models.remat import keep_nothing, keep_products


@pytest.mark.parametrize(("name", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_parameter_counts_of_the_paper(name, millions):
    size = SIZES[name]
    module = DiT(patch=2, width=size.width, depth=size.depth, heads=size.heads, num_classes=1000)
    x, t, labels = jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, t, labels)
    count = sum(a.size for a in jax.tree.leaves(shapes))
    assert round(count / 1e6) == millions
    w = size.width
    block = 6 * w * (w + 1) + w * (3 * w + 3) + w * (w + 1) + (4 * w + 4 * w * w) + (w + 4 * w * w)
    outside = 17 * w + (257 * w + w * w + w) + 1001 * w + 2 * w * (w + 1) + 16 * (w + 1)
    assert count == size.depth * block + outside


def plain_dit(params, heads, double_norm, x, t, labels, s, w, patch=2):
    """The network written out layer by layer, with a Python loop where the module scans."""
    unit = lambda a: a / jnp.sqrt((a**2).mean(-1, keepdims=True)) if double_norm else a

    def linear(p, h):
        return h @ p["kernel"] + p["bias"]

    def embed(p, value):
        return linear(p["linear1"], jax.nn.silu(linear(p["linear0"], sinusoidal(value, 256))))

    def norm(h, shift, scale):
        mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
        return (h - mean) / jnp.sqrt(variance + 1e-6) * unit(1 + scale)[:, None] + unit(shift)[:, None]

    def attend(p, h):
        q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in jnp.split(linear(p["qkv"], h), 3, axis=-1))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]), axis=-1)
        return linear(p["proj"], jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(h.shape))

    _, height, width, _ = x.shape
    c = sum(embed(params["conditioning"][name], value) for name, value in {"t": t, "s": s, "w": w}.items())
    c = jax.nn.silu(c + params["conditioning"]["labels"]["embedding"][labels])
    h = linear(params["embed"], patchify(x, patch))
    h += grid_positions(height // patch, width // patch, h.shape[-1])
    for i in range(len(params["blocks"]["mlp0"]["bias"])):
        p = jax.tree.map(lambda a, i=i: a[i], params["blocks"])
        shift0, scale0, gate0, shift1, scale1, gate1 = jnp.split(linear(p["modulation"], c), 6, axis=-1)
        h += gate0[:, None] * attend(p["self_attention"], norm(h, shift0, scale0))
        hidden = jax.nn.gelu(linear(p["mlp0"], norm(h, shift1, scale1)), approximate=True)
        h += gate1[:, None] * linear(p["mlp1"], hidden)
    h = norm(h, *jnp.split(linear(params["modulation"], c), 2, axis=-1))
    return unpatchify(linear(params["final"], h), patch, height, width)


@pytest.mark.parametrize("double_norm", [False, True])
def test_equals_the_network_written_out(dit, double_norm):
    inputs = dit.x, dit.t, dit.labels, dit.s, dit.w
    value = jax.jit(dit.module.clone(double_norm=double_norm).apply)(dit.params, *inputs)
    expected = jax.jit(plain_dit, static_argnums=(1, 2))(dit.params["params"], 2, double_norm, *inputs)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


def test_initialization_is_that_of_the_paper():
    module = DiT(patch=2, width=64, depth=3, heads=2, num_classes=50)
    arguments = jnp.ones((1, 4, 4, 3)), jnp.ones(1), jnp.zeros(1, jnp.int32)
    variables = jax.jit(module.init)(jax.random.key(0), *arguments)
    params = variables["params"]
    for layer, fans in ((params["embed"], 12 + 64), (params["blocks"]["self_attention"]["qkv"], 64 + 192)):
        bound = np.sqrt(6 / fans)
        assert 0.95 * bound < jnp.abs(layer["kernel"]).max() <= bound
    conditioning = params["conditioning"]
    for kernel in (conditioning["labels"]["embedding"], conditioning["t"]["linear1"]["kernel"]):
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.1)
    for layer in (params["modulation"], params["blocks"]["modulation"], params["final"]):
        assert not any(jnp.any(a) for a in jax.tree.leaves(layer))
    kernel = params["blocks"]["mlp0"]["kernel"]
    assert jnp.all(kernel[0] != kernel[1])
    assert not np.any(np.asarray(module.apply(variables, *arguments)))


def test_normalised_shifts_start_at_full_size_and_all_else_as_before():
    module = DiT(patch=2, width=64, depth=3, heads=2, double_norm=True)
    arguments = jnp.ones((1, 4, 4, 3)), jnp.ones(1)
    variables = jax.jit(module.init)(jax.random.key(0), *arguments)
    blocks, last = variables["params"]["blocks"]["modulation"], variables["params"]["modulation"]
    for layer, parts in ((blocks, 6), (last, 2)):
        assert not jnp.any(layer["kernel"])
        bias = layer["bias"].reshape(-1, parts, 64)
        np.testing.assert_allclose(bias[:, ::3].std(), 1.0, rtol=0.2)
        assert not jnp.any(jnp.delete(bias, jnp.arange(0, parts, 3), axis=1, assume_unique_indices=True))
    assert jnp.all(blocks["bias"][0, :64] != blocks["bias"][1, :64])
    assert not np.any(np.asarray(module.apply(variables, *arguments)))


@pytest.mark.parametrize("remat", [keep_products, keep_nothing])
def test_rematerialization_changes_no_number(remat, dit):
    def loss(params, module):
        key = {"dropout": jax.random.key(3)}
        return jnp.sum(module.apply(params, dit.x, dit.t, dit.labels, dit.s, dit.w, train=True, rngs=key) ** 2)

    def derivatives(module):
        tangents = jax.tree.map(jnp.ones_like, dit.params)
        return jax.jit(
            lambda params: (
                jax.jvp(lambda p: loss(p, module), (params,), (tangents,)),
                jax.grad(loss)(params, module),
            )
        )(dit.params)

    kept, recomputed = derivatives(dit.module), derivatives(dit.module.clone(remat=remat))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max()))


def test_attention_is_the_callable_that_was_passed(dit):
    # Queries and keys of zero attend everywhere alike.
    params = jax.tree.map(lambda a: a, dit.params)
    qkv = params["params"]["blocks"]["self_attention"]["qkv"]
    qkv["kernel"], qkv["bias"] = qkv["kernel"].at[..., :16].set(0), qkv["bias"].at[..., :16].set(0)
    average = dit.module.clone(attention=lambda q, k, v: jnp.broadcast_to(v.mean(1, keepdims=True), q.shape))
    inputs = dit.x, dit.t, dit.labels, dit.s, dit.w
    expected = dit.value(params, *inputs)
    np.testing.assert_allclose(jax.jit(average.apply)(params, *inputs), expected, rtol=1e-5, atol=1e-5)
    assert jnp.abs(expected - dit.value(dit.params, *inputs)).max() > 1e-3


def test_time_scale_multiplies_both_times_and_no_guidance_scale(dit):
    scaled = jax.jit(dit.module.clone(time_scale=4.0).apply)(dit.params, dit.x, dit.t, dit.labels, dit.s, dit.w)
    expected = dit.value(dit.params, dit.x, 4 * dit.t, dit.labels, 4 * dit.s, dit.w)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)


def test_patches_are_row_major_and_invert():
    x = jnp.arange(2.0 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    tokens = patchify(x, 2)
    np.testing.assert_array_equal(tokens[1, 4], x[1, 2:4, 2:4].reshape(-1))
    np.testing.assert_array_equal(unpatchify(tokens, 2, 4, 6), x)


@pytest.mark.parametrize(
    ("shape", "heads", "message"),
    [((2, 6, 5, 1), 2, "not divisible into patches of 2"), ((2, 4, 4, 1), 3, "not divisible by heads=3")],
)
def test_impossible_shapes_are_refused(shape, heads, message):
    module = DiT(patch=2, width=16, depth=1, heads=heads)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(2))


def test_another_number_of_channels_comes_out_of_the_same_body():
    x, t = jnp.zeros((3, 4, 4, 1)), jnp.zeros(3)
    shapes = []
    for channels in (0, 2):
        module = DiT(patch=2, width=8, depth=1, heads=2, out_channels=channels)
        out, params = jax.eval_shape(module.init_with_output, jax.random.key(0), x, t)
        assert out.shape == (3, 4, 4, channels or 1)
        shapes.append(params["params"])
    one, two = shapes
    assert two.pop("final")["bias"].shape == (2 * one.pop("final")["bias"].shape[0],)
    assert one == two
