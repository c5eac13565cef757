import jax.numpy as jnp
import numpy as np
import pytest

from eval.features import in_batches, pixels


def test_pixels_are_flattened_to_the_model_range():
    images = np.array([0, 51, 102, 255], dtype=np.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(pixels.extract(images), [[-1.0, -0.6, -0.2, 1.0]], atol=1e-7)
    assert pixels.extract(images).dtype == np.float32


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_any_number_of_images_runs_at_one_compiled_shape(n):
    traced = []

    def network(params, images):
        traced.append(images.shape)
        return params * images.reshape(len(images), -1).astype(jnp.float32)

    images = np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2, 1)
    extract = in_batches(network, jnp.float32(2.0), batch_size=4)
    np.testing.assert_array_equal(extract(images), 2.0 * images.reshape(n, 4))
    assert traced == [(4, 2, 2, 1)]


def test_no_images_and_no_batch_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        in_batches(lambda params, images: images, None, batch_size=0)
    with pytest.raises(ValueError, match="no images"):
        in_batches(lambda params, images: images, None, batch_size=2)(np.zeros((0, 2, 2, 1), np.uint8))
