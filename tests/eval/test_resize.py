import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.resize import clean_fid_bicubic, tf1_bilinear, torch_bicubic, torch_bilinear

ALL = (clean_fid_bicubic, tf1_bilinear, torch_bicubic, torch_bilinear)


def along(axis, row):
    """Square images that change along one axis only, and have this profile there."""
    square = np.broadcast_to(np.asarray(row, np.uint8), (len(row), len(row)))
    return (square if axis == 2 else square.T)[None, :, :, None]


def resized(function, images, side):
    return np.asarray(function(images if function is clean_fid_bicubic else jnp.asarray(images), side))


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(
    ("function", "row", "expected"),
    [
        # Sources at 0, 1/2, 1, 3/2, 2 and 5/2, where the last one has no pixel beyond it.
        (tf1_bilinear, (0, 30, 90), (0, 15, 30, 60, 90, 90)),
        # Sources at -1/4, 1/4, 3/4, 5/4, 7/4 and 9/4.
        (torch_bilinear, (0, 30, 90), (0, 7.5, 22.5, 45, 75, 90)),
        # Where they reduce they leave pixels out: sources at 0 and 3, and at 1 and 4.
        (tf1_bilinear, (10, 20, 30, 40, 50, 60), (10, 40)),
        (torch_bilinear, (10, 20, 30, 40, 50, 60), (20, 50)),
    ],
)
def test_sources_of_pixels(function, row, expected, axis):
    found = resized(function, along(axis, row), len(expected))
    for line in (found[0, :, 0, 0] if axis == 1 else found[0, 0, :, 0], np.diagonal(found[0, :, :, 0])):
        np.testing.assert_allclose(line, expected, rtol=1e-6)


@pytest.mark.parametrize("function", ALL)
def test_the_size_of_the_network_changes_nothing_and_channels_are_apart(function):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    same = resized(function, images, 9)
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, images)
    larger = resized(function, images, 13)
    assert larger.shape == (2, 13, 13, 3)
    for channel in range(3):
        alone = resized(function, images[1:, ..., channel : channel + 1], 13)
        np.testing.assert_allclose(alone[0, ..., 0], larger[1, ..., channel], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 6, 21), (40, 64, 21)])
def test_two_implementations_of_the_bicubic_kernel_agree(height, width, side):
    blocks = np.random.default_rng(0).integers(0, 2, (2, 4, 2, 3), dtype=np.uint8)
    images = 255 * blocks.repeat(height // 4, axis=1).repeat(width // 2, axis=2)
    one, other = (resized(function, images, side) for function in (torch_bicubic, clean_fid_bicubic))
    # It goes beyond the colours at an edge, which clean-fid cuts off.
    assert one.min() < -5
    assert one.max() > 260
    np.testing.assert_allclose(one.clip(0, 255), other, atol=1e-3)


def test_bicubic_smooths_what_it_reduces_and_bilinear_does_not():
    stripes = along(2, [0, 255] * 32)
    for function in (torch_bicubic, clean_fid_bicubic):
        np.testing.assert_allclose(resized(function, stripes, 8)[..., 2:-2, :], 127.5, atol=2)
    assert resized(tf1_bilinear, stripes, 8).max() == 0  # even columns alone


def test_half_pixels_are_not_tensorflows():
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    difference = resized(tf1_bilinear, noise, 299) - resized(torch_bilinear, noise, 299)
    assert np.abs(difference).max() > 50


@pytest.mark.parametrize("function", [tf1_bilinear, torch_bilinear, torch_bicubic])
def test_a_compiled_resize_is_the_same(function):
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 7, 5, 3), dtype=np.uint8))
    compiled = jax.jit(lambda x: function(x, 16))(images)
    np.testing.assert_allclose(compiled, function(images, 16), rtol=1e-6, atol=1e-4)
