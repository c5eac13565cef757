import numpy as np
import pytest
from PIL import Image

from data.pixels import pixels

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
COLOUR = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)


def test_rgb_and_grey_pass_unchanged():
    np.testing.assert_array_equal(pixels(Image.fromarray(COLOUR), channels=3, size=None), COLOUR)
    np.testing.assert_array_equal(pixels(Image.fromarray(GREY), channels=1, size=None), GREY[..., None])


def test_grey_becomes_rgb_and_rgb_becomes_luminance():
    np.testing.assert_array_equal(
        pixels(Image.fromarray(GREY), channels=3, size=None), GREY[..., None].repeat(3, axis=-1)
    )
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, rounded by Pillow
    np.testing.assert_allclose(pixels(Image.fromarray(COLOUR), channels=1, size=None)[..., 0], luminance, atol=1)


def test_transparency_lies_over_white():
    alpha = np.full((5, 6, 1), 255, np.uint8)
    alpha[0] = 0
    alpha[1] = 51  # one fifth
    given = pixels(Image.fromarray(np.concatenate([COLOUR, alpha], axis=-1)), channels=3, size=None)
    np.testing.assert_array_equal(given[0], 255)
    np.testing.assert_allclose(given[1], 255 - (255 - COLOUR[1].astype(float)) / 5, atol=1)
    np.testing.assert_array_equal(given[2:], COLOUR[2:])


def test_palette_with_and_without_transparency():
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(pixels(image, channels=3, size=None), [[[10, 20, 30], [40, 50, 60]]])
    image.info["transparency"] = 0
    np.testing.assert_array_equal(pixels(image, channels=3, size=None), [[[255, 255, 255], [40, 50, 60]]])


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    np.testing.assert_array_equal(pixels(image, channels=3, size=None), np.tile([255, 0, 0], (2, 2, 1)))


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(GREY > 100)
    assert image.mode == "1"
    np.testing.assert_array_equal(pixels(image, channels=1, size=None)[..., 0], np.where(GREY > 100, 255, 0))


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    np.testing.assert_array_equal(pixels(Image.fromarray(values), channels=1, size=None)[0, :, 0], [0, 1, 128, 255])
    wide = Image.fromarray(values.astype(np.int32))
    np.testing.assert_array_equal(pixels(wide, channels=1, size=None)[0, :, 0], [0, 1, 128, 255])


def test_pixels_of_unknown_range_are_refused():
    with pytest.raises(ValueError, match="floats of unknown range"):
        pixels(Image.fromarray(GREY.astype(np.float32)), channels=1, size=None)
    with pytest.raises(ValueError, match=r"run from 0 to 70000, not within 0 \.\. 65535"):
        pixels(Image.fromarray(np.array([[0, 70000]], np.int32)), channels=1, size=None)


def test_exif_rotation_is_applied():
    image = Image.fromarray(COLOUR)
    image.getexif()[0x0112] = 6  # the camera was turned: show it rotated clockwise
    np.testing.assert_array_equal(pixels(image, channels=3, size=None), np.rot90(COLOUR, -1))


def test_size_cuts_the_centre_square():
    image = np.zeros((4, 10, 3), np.uint8)
    image[:, 3:7] = 200
    np.testing.assert_array_equal(pixels(Image.fromarray(image), channels=3, size=4), np.full((4, 4, 3), 200))
    np.testing.assert_array_equal(pixels(Image.fromarray(image), channels=3, size=2), np.full((2, 2, 3), 200))
    np.testing.assert_array_equal(
        pixels(Image.fromarray(image.transpose(1, 0, 2)), channels=3, size=8), np.full((8, 8, 3), 200)
    )
