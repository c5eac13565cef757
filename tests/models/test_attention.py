import jax
import jax.numpy as jnp
import numpy as np

from models.attention import SelfAttention, softmax_attention


def draws(dtype=jnp.float32, heads=2):
    return tuple(jax.random.normal(jax.random.key(i), (2, 5, heads, 4), dtype) for i in range(3))


def test_equals_the_formula():
    q, k, v = draws()
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / 2.0
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    np.testing.assert_allclose(softmax_attention(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_tangent_equals_its_closed_form():
    (q, k, v), (dq, dk, dv) = draws(), (a[::-1] for a in draws())
    _, tangent = jax.jvp(softmax_attention, (q, k, v), (dq, dk, dv))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2.0, axis=-1)
    dlogits = (jnp.einsum("bqhd,bkhd->bhqk", dq, k) + jnp.einsum("bqhd,bkhd->bhqk", q, dk)) / 2.0
    dweights = weights * (dlogits - jnp.sum(weights * dlogits, axis=-1, keepdims=True))
    expected = jnp.einsum("bhqk,bkhd->bqhd", dweights, v) + jnp.einsum("bhqk,bkhd->bqhd", weights, dv)
    np.testing.assert_allclose(tangent, expected, rtol=1e-4, atol=1e-6)


def test_gradient_through_a_tangent_exists():
    q, k, v = draws()
    gradient = jax.grad(lambda q: jnp.sum(jax.jvp(lambda q: softmax_attention(q, k, v), (q,), (k,))[1] ** 2))(q)
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.any(gradient != 0)


def test_half_precision_keeps_its_dtype_and_a_float32_softmax():
    q, k, v = draws(jnp.bfloat16)
    out = softmax_attention(100 * q, k, v)
    assert out.dtype == jnp.bfloat16
    full = softmax_attention(*(a.astype(jnp.float32) for a in (100 * q, k, v)))
    # Values of size 3 with 8 bits of mantissa; logits of size 300 in bfloat16 would be wrong by a factor e.
    np.testing.assert_allclose(out.astype(jnp.float32), full, atol=0.03)


def test_self_attention_does_not_mind_the_order_of_tokens():
    layer, x = SelfAttention(heads=2), jax.random.normal(jax.random.key(0), (2, 5, 8))
    params = layer.init(jax.random.key(1), x)
    forward, backward = (np.asarray(layer.apply(params, tokens)) for tokens in (x, x[:, ::-1]))
    np.testing.assert_allclose(backward[:, ::-1], forward, atol=1e-6)
