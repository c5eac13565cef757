from typing import Any

import numpy as np
import pytest

from eval.features import Features, pixels
from eval.names import POOL, SPATIAL
from eval.real import make_reference
from eval.reference_files import read_reference, write_reference


@pytest.fixture
def reference():
    images = np.random.RandomState(0).randint(0, 256, (20, 2, 2, 1)).astype(np.uint8)
    return make_reference("noise/train", pixels, images)


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
            *("resolution", "preprocessing", "images_sha256", "weights_sha256", "format_version", "sha256"),
        }
    with pytest.raises(FileExistsError, match="exists"):
        write_reference(path, reference, preprocessing="none")
    write_reference(path, reference, preprocessing="none", overwrite=True)


def test_files_of_the_first_format_are_read(reference, tmp_path):
    write_reference(tmp_path / "new.npz", reference, preprocessing="none")
    with np.load(tmp_path / "new.npz") as file:
        arrays: dict[str, Any] = {
            key: file[key] for key in file.files if key not in ("images_sha256", "weights_sha256")
        }
    np.savez(tmp_path / "old.npz", **arrays | {"format_version": 1})
    assert read_reference(tmp_path / "old.npz", pixels, dim=4).sha256 == reference.sha256
    np.savez(tmp_path / "newer.npz", **arrays | {"format_version": 3})
    with pytest.raises(ValueError, match=r"format_version is 3; versions \(1, 2\)"):
        read_reference(tmp_path / "newer.npz", pixels, dim=4)


def moments(dim, names=("mu", "sigma"), scale=1.0):
    return {names[0]: np.full(dim, scale, np.float32), names[1]: scale * np.eye(dim, dtype=np.float32)}


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
def test_foreign_files_are_read(tmp_path, keys):
    arrays: dict[str, Any] = moments(4, keys)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    reference = read_reference(tmp_path / "cifar10.npz", pixels, dim=4)
    assert (reference.name, reference.n, reference.image_shape) == ("cifar10", None, None)
    assert reference.provenance == f"cifar10.npz: {keys[0]} and {keys[1]}, which does not say its feature and resize"
    np.testing.assert_array_equal(reference.covariance, np.eye(4))


@pytest.mark.parametrize(("feature", "dim", "scale"), [(POOL, 4, 1.0), (SPATIAL, 3, 2.0), ("clip", 5, 3.0)])
def test_adm_keeps_moments_of_several_features(tmp_path, feature, dim, scale):
    several = moments(4) | moments(3, ("mu_s", "sigma_s"), 2.0) | moments(5, ("mu_clip", "sigma_clip"), 3.0)
    arrays: dict[str, Any] = {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), **several}
    np.savez(tmp_path / "adm.npz", **arrays)
    reference = read_reference(tmp_path / "adm.npz", Features(feature, pixels.extract, "tf1"), dim=dim)
    np.testing.assert_array_equal(reference.covariance, scale * np.eye(dim))


@pytest.mark.parametrize("key", ["pool_3", "feats"])
def test_activations_are_kept(tmp_path, key):
    x: dict[str, Any] = {key: np.random.RandomState(1).normal(size=(9, 4)).astype(np.float32)}
    np.savez(tmp_path / "stats.npz", **x)
    reference = read_reference(tmp_path / "stats.npz", pixels, dim=4)
    np.testing.assert_allclose(reference.covariance, np.cov(x[key].astype(np.float64), rowvar=False), rtol=1e-12)
    np.testing.assert_array_equal(reference.real, x[key])
    assert reference.n == 9
    np.savez(tmp_path / "flat.npz", pool_3=np.zeros(4))
    with pytest.raises(ValueError, match=r"pool_3 has shape \(4,\)"):
        read_reference(tmp_path / "flat.npz", pixels, dim=4)


def test_nested_moments_of_edm2_come_from_a_reader_of_its_files(tmp_path):
    def read(path):
        assert path.name == "img512.pkl"
        return {"num_images": 7, "fid": moments(4), "fd_dinov2": moments(3, scale=2.0)}

    for feature, dim, scale in ((POOL, 4, 1.0), ("dinov2", 3, 2.0)):
        features = Features(feature, pixels.extract, "tf1")
        reference = read_reference(tmp_path / "img512.pkl", features, dim=dim, read=read)
        np.testing.assert_array_equal(reference.covariance, scale * np.eye(dim))
        assert reference.n == 7


def test_other_weights_are_refused_where_both_are_known(reference, tmp_path):
    path = tmp_path / "reference.npz"
    known = reference._replace(features=pixels._replace(weights="a" * 64))
    write_reference(path, known, preprocessing="none")
    assert read_reference(path, pixels, dim=4).n == 20
    with pytest.raises(ValueError, match="weights_sha256 is 'aaa"):
        read_reference(path, pixels._replace(weights="b" * 64), dim=4)


ASYMMETRIC = np.eye(4)
ASYMMETRIC[0, 1] = 0.1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"mu": np.zeros(4), "cov": np.eye(4)},
            r"mu and sigma, or ref_mu and ref_sigma, or pool_3, or feats; found \['cov', 'mu'\]",
        ),
        (
            {"mu": np.zeros(5), "sigma": np.eye(5)},
            r"\(5,\) and \(5, 5\), the features have dimension 4; the file holds {'mu': \(5,\)",
        ),
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
    with pytest.raises(ValueError, match="is no npz file"):
        read_reference(tmp_path / "text.npz", pixels, dim=4)


def test_a_covariance_of_few_samples_is_not_refused(tmp_path):
    x = np.random.RandomState(1).normal(size=(5, 32))
    np.savez(tmp_path / "few.npz", mu=x.mean(axis=0), sigma=np.cov(x, rowvar=False).astype(np.float32))
    assert read_reference(tmp_path / "few.npz", Features("other", pixels.extract), dim=32).mean.shape == (32,)
