from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import softmax_attention
from models.autoencoder import Autoencoder

TINY = Autoencoder(channels=4, multipliers=(1, 2), blocks=1, latent_channels=2, image_channels=1, groups=2)
X = jax.random.uniform(jax.random.key(0), (2, 6, 4, 1), minval=-1)


def count(module, shape):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_defaults_have_as_many_parameters_as_stable_diffusions():
    assert count(Autoencoder(), (1, 8, 8, 3)) == 83_653_863


def test_latents_are_smaller_by_the_resolutions_and_images_come_back(randomized):
    variables = randomized(TINY, X)
    mean, logvar = jax.jit(partial(TINY.apply, method="encode"))(variables, X)
    assert mean.shape == logvar.shape == (2, 3, 2, 2)
    decoded = jax.jit(partial(TINY.apply, method="decode"))(variables, mean)
    assert decoded.shape == X.shape
    np.testing.assert_allclose(jax.jit(TINY.apply)(variables, X), decoded, rtol=1e-4, atol=1e-4)


def test_encoding_needs_no_decoder_and_decoding_no_encoder(randomized):
    params = randomized(TINY, X)["params"]
    encode, decode = (partial(jax.eval_shape, partial(TINY.apply, method=method)) for method in ("encode", "decode"))
    mean, _ = encode({"params": {"encoder": params["encoder"]}}, X)
    assert decode({"params": {"decoder": params["decoder"]}}, mean).shape == X.shape


def test_log_variances_are_cut_off(randomized):
    params = randomized(TINY, X)["params"]
    params["encoder"]["moments"]["bias"] = jnp.array([0.0, 0.0, 1e3, -1e3])
    _, logvar = jax.jit(partial(TINY.apply, method="encode"))({"params": params}, X)
    np.testing.assert_array_equal(logvar[..., 0], 20)
    np.testing.assert_array_equal(logvar[..., 1], -30)


def test_the_body_is_in_half_precision_and_the_moments_are_not(randomized):
    variables = randomized(TINY, X)
    half = TINY.clone(dtype=jnp.bfloat16)
    exact, rounded = (jax.jit(partial(module.apply, method="encode"))(variables, X)[0] for module in (TINY, half))
    assert rounded.dtype == jnp.float32
    size = float(jnp.abs(exact).max())
    assert 1e-4 * size < float(jnp.abs(rounded - exact).max()) < 0.05 * size


def test_attention_is_the_one_that_was_passed_or_none(randomized):
    called = []

    def attention(q, k, v):
        called.append(q.shape)
        return softmax_attention(q, k, v)

    module = TINY.clone(attention=attention)
    jax.eval_shape(module.apply, randomized(TINY, X), X)
    assert called == [(2, 6, 1, 8)] * 2  # all pixels of a latent, one head
    # A norm, queries, keys and values, and the projection, twice.
    assert count(TINY, X.shape) - count(TINY.clone(attention=None), X.shape) == 2 * (16 + 3 * 72 + 72)


@pytest.mark.parametrize(
    ("method", "shape", "message"),
    [
        ("encode", (1, 6, 5, 1), "6x5 pixels is not divisible by 2"),
        ("encode", (1, 6, 4, 3), "images of 1 channels, got 3"),
        ("decode", (1, 3, 2, 4), "latents of 2 channels, got 4"),
    ],
)
def test_impossible_inputs_are_refused(method, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(TINY.init, method=method), jax.random.key(0), jnp.zeros(shape))
