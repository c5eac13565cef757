import numpy as np
import pytest

from eval.grid import by_class, grid, labelled_panels


def test_images_are_laid_out_row_by_row():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    picture = np.asarray(grid(images, 2, 3, scale=1, gap=0))
    assert picture.shape == (2, 3, 3)
    np.testing.assert_array_equal(picture[..., 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])


def test_scale_repeats_pixels_and_the_gap_is_white():
    images = np.random.RandomState(0).randint(0, 255, (2, 4, 5, 3)).astype(np.uint8)
    picture = np.asarray(grid(images, 1, 2, scale=3, gap=2))
    assert picture.shape == (12, 15 + 2 + 15, 3)
    np.testing.assert_array_equal(picture[1::3, 1:15:3], images[0])
    np.testing.assert_array_equal(picture[1::3, 18::3], images[1])
    assert (picture[:, 15:17] == 255).all()


@pytest.mark.parametrize(("side", "shown"), [(8, 64), (28, 56), (32, 64), (64, 64), (100, 100)])
def test_tiny_images_grow(side, shown):
    assert grid(np.zeros((1, side, side, 1), np.uint8), 1, 1).size == (shown, shown)


def test_a_grid_needs_enough_images_that_can_be_shown():
    with pytest.raises(ValueError, match="3 images do not fill 2 rows of 2"):
        grid(np.zeros((3, 4, 4, 1), np.uint8), 2, 2)
    with pytest.raises(ValueError, match="4 channels"):
        grid(np.zeros((4, 4, 4, 4), np.uint8), 2, 2)


def test_by_class_orders_classes_in_rows():
    labels = np.array([1, 0, 2, 1, 0, 2, 0])
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    assert by_class(images, labels, num_classes=3, columns=2).ravel().tolist() == [1, 4, 0, 3, 2, 5]
    with pytest.raises(ValueError, match="class 1 has 2 images, a row needs 3"):
        by_class(images, labels, num_classes=3, columns=3)


def test_panels_stand_side_by_side_under_their_captions():
    black = grid(np.zeros((4, 8, 8, 1), np.uint8), 2, 2, gap=0)
    small = grid(np.full((1, 8, 8, 3), 100, np.uint8), 1, 1)
    picture = np.asarray(labelled_panels([("1 step", black), ("a caption wider than its picture", small)]))
    is_black = (picture == 0).all(axis=2)
    assert is_black.sum() == black.width * black.height
    rows, columns = np.nonzero(is_black)
    above = picture[: rows.min(), columns.min() : columns.max() + 1]
    assert (above < 255).any()
    assert (picture == 100).all(axis=2).sum() >= small.width * small.height
    with pytest.raises(ValueError, match="no panels"):
        labelled_panels([])
