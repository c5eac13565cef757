import numpy as np
import pytest

from data.checks import check_batch

BYTES = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
FLOATS = (BYTES / np.float32(127.5) - 1).astype(np.float32)
LABEL = np.array([0, 1, 2, 9], np.int32)
NOT_FINITE = FLOATS.copy()
NOT_FINITE[2, 1, 0, 1] = np.nan


@pytest.mark.parametrize(
    ("batch", "shape", "num_classes"),
    [
        ({"image": BYTES, "label": LABEL}, (8, 6, 3), 10),
        ({"image": BYTES, "label": LABEL}, (8, 6, 3), 0),
        ({"image": BYTES}, (8, 6, 3), 0),
        ({"image": FLOATS}, (8, 6, 3), 0),
        ({"image": np.zeros_like(BYTES)}, (8, 6, 3), 0),
        ({"image": 5 * np.ones((4, 2), np.float32)}, (2,), 0),
        ({"image": 5 * np.ones((4, 8, 8, 4), np.float32)}, (8, 8, 4), 0),
    ],
    ids=["bytes", "labels unused", "no labels", "floats", "black", "vectors", "latents"],
)
def test_legal_batches_pass(batch, shape, num_classes):
    check_batch(batch, shape=shape, num_classes=num_classes)


@pytest.mark.parametrize(
    ("batch", "num_classes", "error", "message"),
    [
        ({"images": BYTES}, 0, ValueError, r"no 'image'; found: images"),
        ({}, 0, ValueError, r"no 'image'; found: nothing"),
        ({"image": BYTES[:, :, :5]}, 0, ValueError, r"got images of shape \(8, 5, 3\).*expected \(8, 6, 3\)$"),
        (
            {"image": BYTES.transpose(0, 3, 1, 2)},
            0,
            ValueError,
            r"got images of shape \(3, 8, 6\) in a batch of \(4, 3, 8, 6\), expected \(8, 6, 3\).*\(NCHW\)",
        ),
        ({"image": BYTES[..., 0]}, 0, ValueError, r"expected \(8, 6, 3\); a channel axis is missing"),
        ({"image": BYTES[:0]}, 0, ValueError, r"the batch is empty"),
        ({"image": FLOATS.astype(np.float64)}, 0, TypeError, r"got float64 images, expected uint8 .* or float32"),
        ({"image": BYTES.astype(np.int32)}, 0, TypeError, r"got int32 images"),
        ({"image": BYTES.astype(np.float32)}, 0, ValueError, r"values run from 0 to 255, which looks like 0 .. 255"),
        ({"image": BYTES / np.float32(255)}, 0, ValueError, r"values run from 0 to 1, which looks like \[0, 1\]"),
        ({"image": FLOATS * 3}, 0, ValueError, r"values run from -3 to 3, which is no usual range"),
        ({"image": BYTES // 128}, 0, ValueError, r"no value above 1, expected 0 .. 255; were they cast"),
        ({"image": NOT_FINITE}, 0, ValueError, r"1 values are not finite, the first is nan at index \(2, 1, 0, 1\)"),
        ({"image": BYTES}, 10, ValueError, r"conditional \(10 classes\), but the batch has no 'label'; found: image"),
        ({"image": BYTES, "label": LABEL.astype(np.float32)}, 10, TypeError, r"got float32 labels, expected int32"),
        ({"image": BYTES, "label": LABEL[:, None]}, 10, ValueError, r"got labels of shape \(4, 1\), expected \(4,\)"),
        (
            {"image": BYTES, "label": LABEL},
            9,
            ValueError,
            r"label 9 at index 3 is out of range: 9 classes allow 0 .. 8",
        ),
        ({"image": BYTES, "label": LABEL - 1}, 10, ValueError, r"label -1 at index 0 is out of range: 10 classes"),
    ],
)
def test_wrong_batches_are_refused(batch, num_classes, error, message):
    with pytest.raises(error, match=message):
        check_batch(batch, shape=(8, 6, 3), num_classes=num_classes)
