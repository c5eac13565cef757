import numpy as np
import pytest
from PIL import Image

from data.folder import folder
from data.memory import cached

COLOUR = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_a_flat_folder_has_no_labels(tmp_path):
    for index in (2, 0, 1):
        save(tmp_path / f"{index}.png", COLOUR[index])
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    source = folder(tmp_path)
    assert (len(source), source.shape, source.num_classes) == (3, (5, 6, 3), 0)
    assert source.name == tmp_path.name
    for index in range(3):
        np.testing.assert_array_equal(source[index]["image"], COLOUR[index])
    assert "label" not in source[0]


def test_class_folders_give_labels_in_sorted_order(tmp_path):
    save(tmp_path / "dog" / "a.png", COLOUR[2])
    save(tmp_path / "cat" / "b.png", COLOUR[1])
    save(tmp_path / "cat" / "a.bmp", COLOUR[0])
    save(tmp_path / "dog" / "deep" / "er.tiff", COLOUR[3])
    source = folder(tmp_path, name="pets")
    assert (source.name, source.num_classes, source.class_names) == ("pets", 2, ("cat", "dog"))
    assert [int(source[index]["label"]) for index in range(4)] == [0, 0, 1, 1]
    assert source[0]["label"].dtype == np.int32
    np.testing.assert_array_equal(cached(source).image, COLOUR)


def test_grey_and_size(tmp_path):
    save(tmp_path / "a.png", COLOUR[0])
    save(tmp_path / "b.png", COLOUR[1, :3])
    source = folder(tmp_path, size=4, channels=1)
    assert source.shape == (4, 4, 1)
    assert source[0]["image"].shape == source[1]["image"].shape == (4, 4, 1)


def test_another_size_is_refused_by_name(tmp_path):
    save(tmp_path / "a.png", COLOUR[0])
    save(tmp_path / "b.png", COLOUR[1, :3])
    source = folder(tmp_path)
    with pytest.raises(
        ValueError, match=r"b\.png, gives an image of shape \(3, 6, 3\), but .*a\.png gives \(5, 6, 3\)"
    ):
        source[1]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(tmp_path / "a.png", large)
    broken = tmp_path / f"broken{suffix}"
    save(broken, large)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cannot read the image .*broken\{suffix}: "):
        folder(tmp_path)[1]


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"cannot read the image .*page\.jpg"):
        folder(tmp_path)


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder of images at /.*nowhere"):
        folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no images: expected files such as"):
        folder(tmp_path)
    save(tmp_path / "cat" / "a.png", COLOUR[0])
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*dog holds no images"):
        folder(tmp_path)
    save(tmp_path / "loose.png", COLOUR[0])
    with pytest.raises(ValueError, match=r"holds images \(loose\.png, \.\.\.\) beside class folders \(cat, \.\.\.\)"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"channels": 4}, "channels is 4, it must be 1"), ({"size": 0}, "size is 0, it must be")]
)
def test_wrong_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, **arguments)
