import jax.numpy as jnp
import numpy as np
import pytest

from eval.features import in_batches, network_features, pixels
from eval.statistics import empty, mean_and_covariance, update


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


def two_outputs(calls):
    """A network of two outputs that counts how often it is traced and run."""

    def network(params, images):
        x = images.reshape(len(images), -1).astype(jnp.float32) / 255
        return x @ params, x[:, :3] + 5

    def prepare(images):
        calls.append(len(images))
        return images

    params = np.random.RandomState(0).normal(size=(4, 6)).astype(np.float32)
    return network_features(("a", "b"), network, params, batch_size=4, resize="tf1", weights="0" * 64, prepare=prepare)


def test_features_of_one_network_share_its_run():
    calls: list[int] = []
    a, b = two_outputs(calls)
    images = np.random.RandomState(1).randint(0, 256, (10, 2, 2, 1)).astype(np.uint8)
    assert (a.extract(images).shape, b.extract(images).shape) == ((10, 6), (10, 3))
    assert a.sums(images).n == 10
    assert calls == [4, 4, 2]
    np.testing.assert_allclose(b.extract(images.copy()), images.reshape(10, -1)[:, :3] / 255 + 5, rtol=1e-6)
    assert len(calls) == 6
    assert [(each.name, each.resize, each.weights) for each in (a, b)] == [(n, "tf1", "0" * 64) for n in "ab"]


def test_sums_on_the_device_are_those_of_the_features():
    images = np.random.RandomState(1).randint(0, 256, (10, 2, 2, 1)).astype(np.uint8)
    for features in two_outputs([]):
        x = features.extract(images)
        expected = update(empty(x.shape[1]), x)
        found = features.sums(images)
        assert found.n == expected.n == 10
        np.testing.assert_allclose(found.total, expected.total, rtol=1e-6)
        np.testing.assert_allclose(found.outer, expected.outer, rtol=1e-6)
        for one, other in zip(mean_and_covariance(found), mean_and_covariance(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_features_that_are_not_finite_are_counted_on_the_device():
    network = lambda params, images: (jnp.where(images[:, 0, 0] > 3, jnp.nan, jnp.ones((len(images), 5))),)
    (features,) = network_features(("broken",), network, None, batch_size=4)
    images = np.array([1, 9, 2, 7, 8], np.uint8).reshape(5, 1, 1, 1)
    assert features.sums is not None
    with pytest.raises(ValueError, match="2 of 4 feature vectors hold NaN"):
        features.sums(images)
    assert features.sums(images[[0, 2]]).n == 2
