import numpy as np
import pytest

from data.memory import ArraySource, cached
from data.source import Example

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABEL = np.array([0, 1, 2, 0, 1, 2], np.int32)


class Slow:
    """The same data as above without the arrays."""

    name, shape, num_classes = "slow", (4, 5, 3), 3

    def __len__(self):
        return len(IMAGE)

    def __getitem__(self, index):
        return Example(image=IMAGE[index], label=LABEL[index])


def test_examples_of_an_array_source():
    source = ArraySource("six", IMAGE, LABEL, 3)
    assert len(source) == 6
    assert source.shape == (4, 5, 3)
    np.testing.assert_array_equal(source[4]["image"], IMAGE[4])
    assert source[4]["label"] == 1
    assert source[4]["label"].dtype == np.int32
    assert "label" not in ArraySource("six", IMAGE)[0]
    assert "label" not in ArraySource("six", IMAGE).take(np.array([0]))


@pytest.mark.parametrize(
    ("image", "label", "num_classes", "message"),
    [
        (IMAGE.transpose(0, 3, 1, 2), None, 0, r"six: got images of shape \(6, 3, 4, 5\), expected .*channels first"),
        (IMAGE[..., 0], None, 0, r"got images of shape \(6, 4, 5\), expected \(n, height.*channel axis is missing"),
        (IMAGE / np.float32(255), None, 0, r"got float32 images, expected uint8; .*looks like \[0, 1\]"),
        (IMAGE / np.float32(127.5) - 1, None, 0, r"looks like \[-1, 1\]: store np.round\(\(image \+ 1\)"),
        (IMAGE.astype(np.float64), None, 0, r"got float64 images, .*looks like 0 .. 255"),
        (IMAGE.astype(np.int64), None, 0, r"got int64 images, expected uint8$"),
        (IMAGE, LABEL[:5], 3, r"got labels of shape \(5,\), expected \(6,\)"),
        (IMAGE, LABEL.astype(np.int64), 3, r"got int64 labels, expected int32"),
        (IMAGE, LABEL, 2, r"label 2 at index 2 is out of range, num_classes=2 allows 0 .. 1"),
        (IMAGE, LABEL - 1, 3, r"label -1 at index 0 is out of range, num_classes=3"),
        (IMAGE, None, 3, r"num_classes is 3, but there are no labels"),
    ],
)
def test_wrong_arrays_are_refused(image, label, num_classes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ArraySource("six", image, label, num_classes)


def test_cached_holds_the_same_examples_under_the_same_name():
    source = cached(Slow())
    assert isinstance(source, ArraySource)
    assert (source.name, source.num_classes) == ("slow", 3)
    np.testing.assert_array_equal(source.image, IMAGE)
    np.testing.assert_array_equal(source.label, LABEL)
    assert cached(source) is source


def test_cached_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"slow: 6 decoded images need .* MiB, more than the limit.*limit_bytes"):
        cached(Slow(), limit_bytes=359)
    assert len(cached(Slow(), limit_bytes=360)) == 6


def test_cached_refuses_images_of_another_shape():
    class Lying(Slow):
        shape = (4, 5, 1)

    with pytest.raises(ValueError, match=r"slow: got images \(4, 5, 3\), expected \(4, 5, 1\)"):
        cached(Lying())
