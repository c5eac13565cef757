from typing import Any

import numpy as np
import pytest

from eval.features import Features, pixels
from eval.reference import make_reference, read_reference, write_reference


@pytest.fixture
def reference():
    images = np.random.RandomState(0).randint(0, 256, (20, 2, 2, 1)).astype(np.uint8)
    return make_reference("noise/train", pixels, images)


def test_a_reference_holds_the_moments_of_its_features(reference):
    np.testing.assert_allclose(reference.mean, reference.real.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(reference.covariance, np.cov(reference.real, rowvar=False), atol=1e-6)
    assert (reference.n, reference.image_shape) == (20, (2, 2, 1))
    assert set(reference.floor) == {"fd", "kid", "precision", "recall"}


def test_moments_round_trip(reference, tmp_path):
    path = tmp_path / "reference.npz"
    write_reference(path, reference, preprocessing="none")
    again = read_reference(path, pixels, dim=4)
    np.testing.assert_array_equal(again.mean, reference.mean)
    np.testing.assert_array_equal(again.covariance, reference.covariance)
    assert again[:2] == ("noise/train", pixels)
    assert (again.n, again.sha256, again.image_shape) == (20, reference.sha256, (2, 2, 1))
    assert again.real is None
    with np.load(path) as file:
        assert set(file.files) == {
            *("mu", "sigma", "n", "feature", "resize", "dataset", "split"),
            *("resolution", "preprocessing", "format_version", "sha256"),
        }
    with pytest.raises(FileExistsError, match="exists"):
        write_reference(path, reference, preprocessing="none")
    write_reference(path, reference, preprocessing="none", overwrite=True)


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
def test_foreign_files_are_read(tmp_path, keys):
    arrays: dict[str, Any] = {keys[0]: np.ones(4, np.float32), keys[1]: np.eye(4, dtype=np.float32)}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    reference = read_reference(tmp_path / "cifar10.npz", pixels, dim=4)
    assert (reference.name, reference.n, reference.image_shape) == ("cifar10", None, None)
    np.testing.assert_array_equal(reference.covariance, np.eye(4))


ASYMMETRIC = np.eye(4)
ASYMMETRIC[0, 1] = 0.1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4), "cov": np.eye(4)}, r"found \['cov', 'mu'\]"),
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, r"\(5,\) and \(5, 5\), the features have dimension 4"),
        ({"mu": np.eye(4), "sigma": np.zeros(4)}, r"\(4, 4\) and \(4,\)"),
        ({"mu": np.zeros(4), "sigma": ASYMMETRIC}, "not symmetric"),
        ({"mu": np.zeros(4), "sigma": np.diag([1.0, 1.0, 1.0, -0.1])}, "not positive semi-definite"),
        ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "NaN or infinite"),
        ({"mu": np.zeros(4), "sigma": np.eye(4), "feature": "inception"}, "feature is 'inception', expected 'pixels'"),
        ({"mu": np.zeros(4), "sigma": np.eye(4), "resize": "bicubic"}, "resize is 'bicubic', expected 'none'"),
        ({"mu": np.zeros(4), "sigma": np.eye(4), "sha256": "0" * 64}, "the file says 0000"),
        ({"mu": np.array([None] * 4), "sigma": np.eye(4)}, "not a readable npz file of plain arrays"),
    ],
)
def test_bad_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_reference(tmp_path / "bad.npz", pixels, dim=4)


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_reference(tmp_path / "absent.npz", pixels, dim=4)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="not a readable npz file"):
        read_reference(tmp_path / "text.npz", pixels, dim=4)


def test_a_covariance_of_few_samples_is_not_refused(tmp_path):
    x = np.random.RandomState(1).normal(size=(5, 32))
    np.savez(tmp_path / "few.npz", mu=x.mean(axis=0), sigma=np.cov(x, rowvar=False).astype(np.float32))
    assert read_reference(tmp_path / "few.npz", Features("other", pixels.extract), dim=32).mean.shape == (32,)
