"""The derivatives of streaming attention beside those that JAX has of plain attention."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from losses import continuous_consistency, mean_flow
from models import streaming_chunked, streaming_tpu
from models.attention import STREAMED_KEYS, plain_attention, softmax_attention
from models.dit import DiT
from models.remat import keep_all, keep_nothing
from models.streaming_attention import streaming_attention

streaming = partial(streaming_attention, kernels=streaming_chunked.in_blocks(8))


def plain(q, k, v):
    """Attention of which every digit of float64 is right; JAX's own has its softmax in float32."""
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def triple(seed, queries=11, keys=13):
    """q, k, v."""
    generator = np.random.default_rng(seed)
    return tuple(jnp.asarray(generator.standard_normal((2, n, 2, 3))) for n in (queries, keys, keys))


def derivatives(function):
    """What training and sampling ask for, and what they do not."""
    x, d, e = triple(0), triple(1), triple(2)

    def squared(*x):
        return jnp.sum(function(*x) ** 2)

    def residual(stopped):
        def loss(*x):
            u, du = jax.jvp(function, x, d)
            return jnp.sum((u - (jax.lax.stop_gradient(du) if stopped else du) - e[0]) ** 2)

        return jax.grad(loss, (0, 1, 2))

    gradient = jax.grad(squared, (0, 1, 2))
    return {
        "output": function(*x),
        "gradient": gradient(*x),
        "tangent": jax.jvp(function, x, d),
        "linearize": jax.linearize(function, *x)[1](*d),
        "gradient beside a stopped tangent": residual(True)(*x),
        "gradient through a tangent": residual(False)(*x),
        "gradient for a direction": jax.grad(lambda d: jnp.sum(jax.jvp(function, x, d)[1] ** 2))(d),
        "tangent of a gradient": jax.jvp(gradient, x, d),
        "gradient of a gradient": jax.grad(lambda q: jnp.sum(gradient(q, *x[1:])[1] * e[1]))(x[0]),
        "second tangent": jax.jvp(lambda *x: jax.jvp(function, x, d)[1], x, e),
    }


def once(function):
    return lambda q, k, v: function(jnp.sin(q), k, v)


def layers_computed_again(function):
    again = jax.checkpoint(function, prevent_cse=False)
    return lambda q, k, v: jax.lax.scan(lambda h, _: (again(h, k, v), None), q, None, length=2)[0]


def mapped(function):
    each = jax.vmap(function, in_axes=(0, 2, None), out_axes=1)
    return lambda q, k, v: each(jnp.stack([q, 2 * q]), jnp.stack([k, -k], axis=2), v).sum(1)


@pytest.mark.parametrize("form", [once, layers_computed_again, mapped])
def test_every_derivative_equals_that_of_plain_attention(form, float64):
    expected = jax.jit(lambda: derivatives(form(plain)))()
    found = jax.jit(lambda: derivatives(form(streaming)))()
    for name in expected:
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11 * np.abs(b).max(), rtol=1e-11, err_msg=name)


def test_without_jit_too(float64):
    x, d = triple(0), triple(1)

    def loss(function, q):
        u, du = jax.jvp(lambda q: function(q, *x[1:]), (q,), d[:1])
        return jnp.sum((u - jax.lax.stop_gradient(du)) ** 2)

    expected, found = (jax.grad(partial(loss, function))(x[0]) for function in (plain, streaming))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def primitives(function, *arguments):
    """Which of the primitives a function is made of."""
    names = [str(equation.primitive) for equation in jax.make_jaxpr(function)(*arguments).eqns]
    return sorted(name.removeprefix("streaming_attention") for name in names if name.startswith("streaming"))


def test_output_and_tangent_are_one_pass_and_a_stopped_tangent_costs_no_curvature():
    x, d = triple(0), triple(1)

    def loss(x):
        u, du = jax.jvp(streaming, x, d)
        return jnp.sum((u - jax.lax.stop_gradient(du)) ** 2)

    assert primitives(lambda: jax.jvp(streaming, x, d)) == ["_dual"]
    assert primitives(jax.grad(lambda x: jnp.sum(streaming(*x))), x) == ["", "_backward"]
    assert primitives(jax.grad(loss), x) == ["_backward", "_dual"]


@pytest.mark.parametrize("recipe", ["MeanFlow", "sCM"])
def test_gradients_of_a_transformer_equal_those_with_plain_attention(recipe, randomized):
    model = DiT(
        patch=1, width=8, depth=2, heads=2, second_time=True, remat=keep_nothing if recipe == "sCM" else keep_all
    )
    x, t = jax.random.normal(jax.random.key(0), (4, 3, 5, 2)), jnp.full(4, 0.5)
    params = randomized(model, x, t, None, t)

    def loss(params, attention):
        def net(x, t, s=None, y=None):
            return model.clone(attention=attention).apply(params, x, t, None, t if s is None else s)

        key = jax.random.key(1)
        losses, _ = mean_flow(net, x, key) if recipe == "MeanFlow" else continuous_consistency(net, x, key)
        return losses.mean()

    both = jax.jit(lambda p: [jax.grad(loss)(p, attention) for attention in (plain_attention, streaming)])(params)
    for expected, found in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["MeanFlow", "sCM"])
def test_a_step_on_4096_tokens_needs_a_quarter_of_the_memory(recipe):
    model = DiT(patch=1, width=64, depth=2, heads=2, second_time=True)
    image, t = jax.ShapeDtypeStruct((4, 64, 64, 4), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image, t, None, t)

    def temporaries(attention):
        def loss(params, x):
            def net(x, t, s=None, y=None):
                return model.clone(attention=attention).apply(params, x, t, None, t if s is None else s)

            key = jax.random.key(1)
            return (mean_flow(net, x, key) if recipe == "MeanFlow" else continuous_consistency(net, x, key))[0].mean()

        memory: Any = jax.jit(jax.grad(loss)).lower(params, image).compile().memory_analysis()
        return memory.temp_size_in_bytes

    assert temporaries(softmax_attention) < temporaries(plain_attention) / 4


def test_short_sequences_are_plain_and_long_ones_streamed():
    q, k = jnp.ones((1, 3, 1, 2)), jnp.ones((1, STREAMED_KEYS - 1, 1, 2))
    assert str(jax.make_jaxpr(softmax_attention)(q, k, k)) == str(jax.make_jaxpr(plain_attention)(q, k, k))
    long = jnp.ones((1, STREAMED_KEYS, 1, 2))
    assert primitives(softmax_attention, q, long, long) == [""]


@pytest.mark.parametrize("axes", [("data", "fsdp"), ("data", "tensor")])
def test_a_kernel_that_xla_cannot_share_out_is_called_on_each_device(axes):
    kernels = streaming_tpu.interpreted._replace(partitionable=False)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), axes, axis_types=(AxisType.Auto,) * 2)
    devices = jax.sharding.AbstractMesh((2, 2), axes, axis_types=(AxisType.Auto,) * 2)
    x = jax.ShapeDtypeStruct((4, 6, 2, 3), jnp.float32, sharding=NamedSharding(devices, PartitionSpec("data")))

    def gradient(x):
        with jax.sharding.use_abstract_mesh(devices):
            return jax.grad(lambda x: jnp.sum(streaming_attention(x, x, x, kernels)))(x)

    # Lowered and not run: a test has one device.
    text = jax.jit(gradient).trace(x).lower(lowering_platforms=("cpu",)).as_text()
    assert "manual_computation" in text or "SPMDFullToShardShape" in text
    whole = jax.jit(lambda x: streaming_attention(x, x, x, kernels))
    x = jax.device_put(jnp.ones((4, 6, 2, 3)), NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(whole(x), x, rtol=1e-6)


def bad(**shapes):
    arrays = {"q": jnp.ones((2, 3, 4, 5)), "k": jnp.ones((2, 6, 4, 5)), "v": jnp.ones((2, 6, 4, 5))} | shapes
    return arrays["q"], arrays["k"], arrays["v"]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (bad(k=jnp.ones((2, 6, 4, 3))), r"k like v; got \(2, 3, 4, 5\), \(2, 6, 4, 3\)"),
        (bad(k=jnp.ones((2, 6, 2, 5)), v=jnp.ones((2, 6, 2, 5))), "agree in all but the length"),
        (bad(q=jnp.ones((2, 3, 4, 5), jnp.bfloat16)), "one floating dtype, got bfloat16, float32 and float32"),
        (bad(k=jnp.ones((2, 0, 4, 5)), v=jnp.ones((2, 0, 4, 5))), "attention over nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(arrays, told, unchecked_shapes):
    with pytest.raises(ValueError, match=told):
        streaming_attention(*arrays)
