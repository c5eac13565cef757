"""Each implementation of streaming attention beside the formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import streaming_chunked, streaming_gpu, streaming_tpu

# Small blocks have several of them in a short sequence.
IMPLEMENTATIONS = {
    "chunked": streaming_chunked.in_blocks(8),
    "tpu": streaming_tpu.interpreted,
    "gpu": streaming_gpu.interpreted,
}
SHAPES = {"odd lengths": (2, 67, 129, 2, 12), "one key": (1, 5, 1, 2, 16), "one query": (1, 1, 9, 1, 3)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def draws(shape, dtype, size=1.0):
    """q, k, v, their tangents and a cotangent, rounded to the dtype."""
    batch, queries, keys, heads, features = shape
    generator = np.random.default_rng(0)
    lengths = (queries, keys, keys, queries, keys, keys, queries)
    arrays = [generator.standard_normal((batch, length, heads, features)) for length in lengths]
    arrays[0] *= size
    return [jnp.asarray(a, dtype) for a in arrays]


def formulas(q, k, v, q_dot, k_dot, v_dot, o_bar):
    """Output, tangent and gradients in float64."""
    q, k, v, q_dot, k_dot, v_dot, o_bar = (np.asarray(a, np.float64) for a in (q, k, v, q_dot, k_dot, v_dot, o_bar))
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    lse = np.log(weights.sum(-1)) + logits.max(-1)
    weights /= weights.sum(-1, keepdims=True)
    rate = (np.einsum("bqhd,bkhd->bhqk", q_dot, k) + np.einsum("bqhd,bkhd->bhqk", q, k_dot)) / np.sqrt(q.shape[-1])
    rate = weights * (rate - (weights * rate).sum(-1, keepdims=True))
    bars = np.einsum("bqhd,bkhd->bhqk", o_bar, v)
    bars = weights * (bars - (weights * bars).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return {
        "o": np.einsum("bhqk,bkhd->bqhd", weights, v),
        "lse": lse,
        "o_dot": np.einsum("bhqk,bkhd->bqhd", rate, v) + np.einsum("bhqk,bkhd->bqhd", weights, v_dot),
        "q_bar": np.einsum("bhqk,bkhd->bqhd", bars, k),
        "k_bar": np.einsum("bhqk,bqhd->bkhd", bars, q),
        "v_bar": np.einsum("bhqk,bqhd->bkhd", weights, o_bar),
    }


def check(kernels, arrays, tolerance):
    *x, o_bar = arrays

    @jax.jit
    def everything(x, o_bar):
        o, lse = kernels.forward(*x[:3])
        return (o, lse), kernels.dual(*x), kernels.backward(*x[:3], o, lse, o_bar)

    (o, lse), (o_too, lse_too, o_dot), bars = everything(x, o_bar)
    found = {"o": o, "lse": lse, "o_dot": o_dot, **dict(zip(("q_bar", "k_bar", "v_bar"), bars, strict=True))}
    for name, expected in formulas(*arrays).items():
        value = np.asarray(found[name], np.float64)
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(value / scale, expected / scale, atol=tolerance, rtol=0, err_msg=name)
        assert found[name].dtype == (jnp.float32 if name == "lse" else x[0].dtype)
    np.testing.assert_allclose(lse_too, lse, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.asarray(o_too, np.float32), np.asarray(o, np.float32), atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_output_tangent_and_gradients_equal_the_formulas(name, shape, dtype):
    check(IMPLEMENTATIONS[name], draws(SHAPES[shape], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_large_logits_neither_overflow_nor_lose_digits(name):
    # Logits of size 300: without the row's maximum their exponentials are infinite. In float32 they are exact to
    # 2e-5, and so are the weights.
    check(IMPLEMENTATIONS[name], draws((1, 67, 40, 2, 16), "float32", size=100.0), 1e-4)


# Triton is what Pallas has for GPUs before Hopper; from jax 0.11 on it says that it will go.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["forward", "dual", "backward"])
def test_the_gpu_kernels_are_lowered_for_cuda(name):
    x = jax.ShapeDtypeStruct((2, 100, 3, 40), jnp.bfloat16)
    rows = jax.ShapeDtypeStruct((2, 3, 100), jnp.float32)
    arguments = {"forward": (x, x, x), "dual": (x,) * 6, "backward": (x, x, x, x, rows, x)}[name]
    hopper = jax.sharding.AbstractDevice("NVIDIA H200", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=hopper)):
        lowered = jax.jit(getattr(streaming_gpu, name)).trace(*arguments).lower(lowering_platforms=("cuda",))
    kernels = {"forward": 1, "dual": 1, "backward": 2}[name]
    assert lowered.as_text().count("stablehlo.custom_call @__gpu$xla.gpu.triton") == kernels
