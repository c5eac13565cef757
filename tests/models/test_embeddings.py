import math

import jax.numpy as jnp
import numpy as np
import pytest

from models.embeddings import edm_positional, fourier, fourier_frequencies, grid_positions, sinusoidal

T = jnp.array([0.0, 0.7, 3.0])


def test_sinusoidal_is_cosine_then_sine_and_stops_short_of_the_longest_period():
    expected = [[f(t * w) for f in (math.cos, math.sin) for w in (1.0, 1e-2)] for t in (0.0, 0.7, 3.0)]
    np.testing.assert_allclose(sinusoidal(T, 4), expected, rtol=1e-6)


def test_edm_positional_is_sine_then_cosine_and_reaches_the_longest_period():
    expected = [[f(t * w) for f in (math.sin, math.cos) for w in (1.0, 1e-2, 1e-4)] for t in (0.0, 0.7, 3.0)]
    np.testing.assert_allclose(edm_positional(T, 6), expected, rtol=1e-6)


def test_edm_positional_of_a_thousand_w_is_lcms_embedding_of_a_guidance_scale():
    """Numbers of diffusers' function for w = 7, in float32 as here: the sine of 7,000 is good to 4 digits."""
    golden = [0.50688541, -0.97047961, 0.58665329, 0.64421761, 0.86201346, -0.24118312, -0.80983824, 0.76484221]
    np.testing.assert_allclose(edm_positional(1000 * jnp.array([7.0]), 8)[0], golden, atol=1e-4)


def test_fourier_is_sine_then_cosine_of_full_turns():
    np.testing.assert_allclose(fourier(jnp.array([0.25]), (1.0, 2.0)), [[1, 0, 0, -1]], atol=1e-6)


def test_fourier_frequencies_are_gaussian_and_always_the_same():
    frequencies = fourier_frequencies(4000, scale=16.0)
    np.testing.assert_allclose(np.mean(frequencies), 0.0, atol=4 * 16 / np.sqrt(2000))
    np.testing.assert_allclose(np.std(frequencies), 16.0, rtol=4 / np.sqrt(2 * 2000))
    np.testing.assert_allclose(fourier_frequencies(4, 1.0), (1.0127987519960386, 0.6997375939802409), rtol=1e-12)


def test_grid_encodes_the_column_before_the_row():
    positions = grid_positions(height=2, width=3, features=8).reshape(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in (1.0, 1e-2)]
            np.testing.assert_allclose(positions[row, column], expected, rtol=1e-6, atol=1e-7)


def test_half_precision_time_is_embedded_in_float32():
    for embedded in (sinusoidal(T.astype(jnp.bfloat16), 8), edm_positional(T.astype(jnp.bfloat16), 8)):
        assert embedded.dtype == jnp.float32


@pytest.mark.parametrize(
    "embed",
    [
        lambda: sinusoidal(T, 5),
        lambda: edm_positional(T, 2),
        lambda: fourier_frequencies(3),
        lambda: grid_positions(2, 2, 6),
    ],
)
def test_impossible_sizes_are_refused(embed):
    with pytest.raises(ValueError, match="features"):
        embed()
