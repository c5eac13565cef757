import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eval.images import read_images, to_uint8, write_samples


def test_every_grey_level_survives_the_round_trip():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = levels.astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_array_equal(to_uint8(x), levels)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(x)), levels)


def test_values_outside_the_range_are_clipped():
    x = np.array([-7.0, -1.0, 0.0, 1.0, 1.5], dtype=np.float32).reshape(1, 1, 5, 1)
    assert to_uint8(x).ravel().tolist() == [0, 0, 128, 255, 255]


def test_non_finite_values_are_refused_with_counts():
    x = np.zeros((4, 2, 2, 1), dtype=np.float32)
    x[1, 0, 0, 0], x[1, 0, 1, 0], x[3, 1, 1, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match="3 of 16 values, in 2 of 4 images"):
        to_uint8(x)


def test_samples_round_trip_and_are_not_overwritten_unasked(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    path = tmp_path / "samples.npz"
    write_samples(path, images, np.array([3, 4], dtype=np.int32))
    np.testing.assert_array_equal(read_images(path), images)
    assert np.load(path)["arr_1"].tolist() == [3, 4]
    with pytest.raises(FileExistsError, match=r"samples\.npz exists"):
        write_samples(path, images)
    write_samples(path, images + 1, overwrite=True)
    np.testing.assert_array_equal(read_images(path), images + 1)
    assert np.load(path).files == ["arr_0"]
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npz"]


def test_npz_without_images_lists_its_keys(tmp_path):
    np.savez(tmp_path / "other.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ValueError, match=r"expected images under arr_0; found \['mu', 'sigma'\]"):
        read_images(tmp_path / "other.npz")
    np.savez(tmp_path / "float.npz", arr_0=np.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="float64"):
        read_images(tmp_path / "float.npz")


def test_a_folder_is_read_in_order_of_names(tmp_path):
    for i, name in enumerate(["b.png", "a.png", "c.png"]):
        Image.fromarray(np.full((2, 3), i, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    images = read_images(tmp_path)
    assert images.shape == (3, 2, 3, 1)
    assert images[:, 0, 0, 0].tolist() == [1, 0, 2]


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LA"])
def test_colour_files_become_rgb(tmp_path, mode):
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}")
    images = read_images(tmp_path)
    assert images.shape == (1, 4, 4, 3)
    assert images.min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_as_in_training(tmp_path, mode):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode).save(
        tmp_path / "a.png", transparency=0 if mode == "P" else None
    )
    np.testing.assert_array_equal(read_images(tmp_path), 255)


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("L", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert read_images(tmp_path).shape == (1, 4, 2, 1)


def test_bad_folders_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such npz file or folder"):
        read_images(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no image files"):
        read_images(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: shape \(4, 5, 1\), but a\.png has \(4, 4, 1\)"):
        read_images(tmp_path)
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"b\.png: cannot be read"):
        read_images(tmp_path)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: .*not 8-bit"):
        read_images(tmp_path)
