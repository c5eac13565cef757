import numpy as np
import pytest

from eval.features import Features, pixels
from eval.real import make_reference, measure_stream
from eval.sets import compare_embeddings


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (20, 2, 2, 1)).astype(np.uint8)


def test_a_reference_holds_the_moments_of_its_features(images):
    reference = make_reference("noise/train", pixels, images)
    assert reference.real is not None
    np.testing.assert_allclose(reference.mean, reference.real.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(reference.covariance, np.cov(reference.real, rowvar=False), atol=1e-6)
    assert (reference.n, reference.image_shape) == (20, (2, 2, 1))
    assert set(reference.floor) == {"fd", "kid", "precision", "recall"}


def test_what_is_compared_is_also_the_floor(images):
    assert set(make_reference("noise", pixels, images, compare=compare_embeddings).floor) == {"fd", "cmmd"}


def test_a_stream_has_the_moments_of_the_whole(images):
    whole = make_reference("noise/train", pixels, images)
    streamed, sha256 = measure_stream("noise/train", pixels, iter([images[:7], images[7:8], images[8:]]))
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=1e-12, atol=1e-14)
    assert (streamed.n, streamed.image_shape, streamed.real) == (20, (2, 2, 1), None)
    assert sha256 == measure_stream("other", pixels, [images]).images_sha256
    assert sha256 != measure_stream("other", pixels, [images[::-1]]).images_sha256


def test_what_is_kept_of_a_stream_is_drawn_from_all_of_it_however_it_is_cut():
    """Of a folder that is sorted by class every class is kept by its share."""
    classes = np.repeat(np.arange(10, dtype=np.uint8), 200)
    images = np.stack([classes, np.arange(2000) % 251], 1).astype(np.uint8).reshape(-1, 1, 2, 1)
    kept = [
        measure_stream("sorted", pixels, np.split(images, cuts), keep=500).reference.real
        for cuts in ([1000], range(7, 2000, 7), [1999])
    ]
    for other in kept[1:]:
        np.testing.assert_array_equal(other, kept[0])
    assert kept[0] is not None
    assert kept[0].shape == (500, 2)
    of_class = np.bincount(np.rint((kept[0][:, 0] + 1) * 127.5).astype(int), minlength=10)
    assert of_class.min() > 25  # 50 of each on average, 6 about it
    whole = measure_stream("sorted", pixels, [images], keep=2000).reference.real
    np.testing.assert_array_equal(whole, pixels.extract(images))


def test_streams_that_cannot_be_measured(images):
    with pytest.raises(ValueError, match="noise has no images"):
        measure_stream("noise", pixels, [])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        measure_stream("noise", pixels, [images[:1]])
    with pytest.raises(ValueError, match=r"of \(2, 2, 1\) and of \(2, 1, 1\)"):
        measure_stream("noise", pixels, [images, images[:, :, :1]])
    broken = Features("broken", lambda images: np.full((len(images), 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="20 of 20 feature vectors hold NaN"):
        measure_stream("noise", broken, [images])
