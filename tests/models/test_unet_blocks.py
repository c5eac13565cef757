import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.unet_blocks import UNetBlock, double_norm, downsample, group_norm, upsample

BOX, SMOOTH = (1, 1), (1, 3, 3, 1)
X = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))


def test_box_filter_averages_and_repeats():
    averaged = X.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(downsample(X, BOX), averaged, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(upsample(X, BOX), X.repeat(2, 1).repeat(2, 2), rtol=1e-6)


def test_smooth_filter_against_its_matrix():
    down = np.zeros((2, 4))
    for i in range(2):
        for k, tap in enumerate((1, 3, 3, 1)):
            if 0 <= 2 * i + k - 1 < 4:
                down[i, 2 * i + k - 1] = tap / 8
    x = X[:, :, :4]
    expected = np.einsum("ih,jw,bhwc->bijc", down, down, x)
    np.testing.assert_allclose(downsample(x, SMOOTH), expected, rtol=1e-5, atol=1e-6)
    small = x[:, :2, :2]
    expected = 4 * np.einsum("ih,jw,bijc->bhwc", down, down, small)
    np.testing.assert_allclose(upsample(small, SMOOTH), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("taps", [BOX, SMOOTH])
def test_upsampling_is_four_times_the_transpose(taps):
    y = jax.random.normal(jax.random.key(1), (2, 2, 3, 3))
    left, right = jnp.vdot(upsample(y, taps), X), 4 * jnp.vdot(y, downsample(X, taps))
    np.testing.assert_allclose(left, right, rtol=1e-5)


def test_a_border_that_is_there_is_not_added_again():
    padded = jnp.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(downsample(padded, SMOOTH, padded=True), downsample(X, SMOOTH))


def test_double_norm_gives_a_scale_around_one_and_a_shift_of_unit_mean_square():
    out = jax.random.normal(jax.random.key(0), (3, 8))
    scale, shift = (np.asarray(a)[:, 0, 0] for a in double_norm(out))
    for found, vector in ((scale, 1 + out[:, :4]), (shift, out[:, 4:])):
        np.testing.assert_allclose(found, vector / np.sqrt((vector**2).mean(-1, keepdims=True)), rtol=1e-5)
    np.testing.assert_array_equal(double_norm(jnp.zeros((1, 4)))[0], 1.0)


def test_block_with_double_norm_sees_directions_alone(randomized):
    block = UNetBlock(4, None, None, group_norm, double_norm=True, dropout=0.0, deterministic=True, dtype=jnp.float32)
    x, embedding = jax.random.normal(jax.random.key(0), (2, 4, 4, 4)), jnp.zeros((2, 5))
    params = randomized(block, x, embedding)["params"]
    affine = params["affine"]
    value = jax.jit(lambda bias: block.apply({"params": params | {"affine": affine | {"bias": bias}}}, x, embedding))
    scale, shift = 1 + affine["bias"][:4], affine["bias"][4:]
    base = value(affine["bias"])
    np.testing.assert_allclose(value(jnp.concatenate([3 * scale - 1, 5 * shift])), base, rtol=1e-5, atol=1e-5)
    for other in (jnp.concatenate([scale[::-1] - 1, shift]), jnp.concatenate([scale - 1, -shift])):
        assert jnp.abs(value(other) - base).max() > 1e-2
