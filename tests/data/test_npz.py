import io
import zipfile

import numpy as np
import pytest

from data.npz import npz

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABEL = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("keys", [("image", "label"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_the_usual_keys_are_read(tmp_path, keys):
    path = tmp_path / "six.npz"
    np.savez(path, **dict(zip(keys, (IMAGE, LABEL), strict=True)))
    source = npz(path)
    assert (source.name, source.shape, source.num_classes) == ("six", (4, 5, 3), 3)
    np.testing.assert_array_equal(source.image, IMAGE)
    np.testing.assert_array_equal(source.label, LABEL)
    assert source.label is not None
    assert source.label.dtype == np.int32


def test_labels_are_optional(tmp_path):
    np.savez_compressed(tmp_path / "plain.npz", image=IMAGE)
    source = npz(tmp_path / "plain.npz", name="other")
    assert (source.name, source.label, source.num_classes) == ("other", None, 0)


def test_num_classes_may_exceed_the_labels_seen(tmp_path):
    np.savez(tmp_path / "six.npz", image=IMAGE, label=LABEL)
    assert npz(tmp_path / "six.npz", num_classes=10).num_classes == 10


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"pictures": IMAGE, "label": LABEL}, ValueError, r"no images under image, .*; found: pictures, label"),
        ({}, ValueError, r"found: nothing"),
        ({"image": IMAGE.transpose(0, 3, 1, 2)}, ValueError, r"got images of shape \(6, 3, 4, 5\), expected .*NCHW"),
        ({"image": IMAGE[..., 0]}, ValueError, r"a channel axis is missing"),
        ({"image": IMAGE / 255}, TypeError, r"float64 images, expected uint8; values run from 0 to 1, .*np\.round"),
        ({"image": np.array([{}, {}])}, ValueError, r"without pickled objects: Object arrays cannot be loaded"),
        ({"image": IMAGE, "label": LABEL / 2}, TypeError, r"got float64 labels, expected whole numbers"),
        ({"image": IMAGE, "label": np.eye(6, 3, dtype=int)}, ValueError, r"labels of shape \(6, 3\), expected \(6,\)"),
        ({"image": IMAGE, "label": LABEL - 1}, ValueError, r"label -1 at index 0 is out of range"),
        ({"image": IMAGE, "label": LABEL + 2**32}, ValueError, r"label 2147483647 at index 0 is out of range"),
    ],
)
def test_wrong_files_are_refused_with_their_path(tmp_path, arrays, error, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(error, match=r"bad\.npz.*" + message):
        npz(tmp_path / "bad.npz", num_classes=3)


def test_too_small_num_classes_is_refused(tmp_path):
    np.savez(tmp_path / "six.npz", image=IMAGE, label=LABEL)
    with pytest.raises(ValueError, match=r"label 2 at index 2 is out of range, num_classes=2 allows 0 .. 1"):
        npz(tmp_path / "six.npz", num_classes=2)


def test_files_that_are_no_npz_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at /.*none\.npz"):
        npz(tmp_path / "none.npz")
    np.save(tmp_path / "single.npy", IMAGE)
    with pytest.raises(ValueError, match=r"cannot read .*single\.npy .*single array"):
        npz(tmp_path / "single.npy")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"cannot read .*text\.npz as \.npz"):
        npz(tmp_path / "text.npz")
    np.savez(tmp_path / "six.npz", image=IMAGE)
    whole = (tmp_path / "six.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*cut\.npz as \.npz"):
        npz(tmp_path / "cut.npz")
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=r"cannot read .*flipped\.npz as \.npz"):
        npz(tmp_path / "flipped.npz")


def test_a_header_that_promises_more_than_any_machine_holds_is_refused(tmp_path):
    header = io.BytesIO()
    promised = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 2**10, 2**10, 3)}
    np.lib.format.write_array_header_2_0(header, promised)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(100))
    with pytest.raises(ValueError, match=r"cannot read .*huge\.npz as \.npz without pickled objects"):
        npz(tmp_path / "huge.npz")
