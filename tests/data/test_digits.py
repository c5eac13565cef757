import numpy as np
import pytest

from data.digits import digits


def test_all_digits_are_uint8_images_that_use_the_whole_range():
    source = digits()
    assert len(source) == 1797
    assert source.shape == (8, 8, 1)
    assert source.num_classes == 10
    assert source.image.dtype == np.uint8
    # 17 grey levels, spread over 0 .. 255: round(v * 255 / 16).
    np.testing.assert_array_equal(np.unique(source.image), np.round(np.arange(17) * 255 / 16))


def test_the_splits_are_disjoint_cover_all_and_hold_every_class_alike():
    train, held_out, everything = digits("train"), digits("held_out"), digits("all")
    assert (len(train), len(held_out)) == (1442, 355)

    def rows(source):
        return sorted(map(bytes, source.image.reshape(len(source), -1)))

    assert sorted(rows(train) + rows(held_out)) == rows(everything)
    assert not set(rows(train)) & set(rows(held_out))
    assert held_out.label is not None
    assert everything.label is not None
    share = np.bincount(held_out.label) / np.bincount(everything.label)
    np.testing.assert_allclose(share, 0.2, atol=1 / 174)


def test_an_unknown_split_names_the_closest():
    with pytest.raises(ValueError, match=r"no split 'heldout', only all, train, held_out; did you mean 'held_out'\?"):
        digits("heldout")
