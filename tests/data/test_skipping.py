import pickle

import numpy as np
import pytest
from PIL import Image

from data import SkippingSource, batches, folder, skip_unreadable

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    """Six images, of which numbers 2 and 3 are cut short."""
    for index, image in enumerate(COLOUR):
        path = tmp_path / "one" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        if index in (2, 3):
            path.write_bytes(path.read_bytes()[:50])
    return folder(tmp_path)


def test_without_the_policy_the_first_unreadable_example_is_an_error_with_its_file(images):
    assert skip_unreadable(images, at_most=0) is images
    with pytest.raises(ValueError, match=r"example 2 of .*: cannot read the image .*one/2\.png"):
        images[2]


def test_the_next_readable_example_takes_its_place_and_each_is_told_once(images):
    source = skip_unreadable(images, at_most=2)
    with pytest.warns(UserWarning, match=r"skipped example \d, \d of at most 2: example \d of .*\d\.png") as warned:
        found = [source[index]["image"] for index in (2, 3, 2, 3)]
    told = [str(each.message).partition(": ")[2][:32] for each in warned]
    assert told == ["skipped example 2, 1 of at most ", "skipped example 3, 2 of at most "]
    np.testing.assert_array_equal(found, [COLOUR[4]] * 4)
    assert isinstance(source, SkippingSource)
    assert source.skipped.keys() == {2, 3}
    assert (source.name, source.shape, source.num_classes, len(source)) == (images.name, (4, 4, 3), 1, 6)


def test_batches_go_on_and_are_the_same_again(images):
    def read():
        iterator = batches(skip_unreadable(images, at_most=2), seed=0, batch_size=3, num_threads=1)
        return np.stack([next(iterator)["image"] for _ in range(4)])

    with pytest.warns(UserWarning, match="skipped example"):
        once, again = read(), read()
    np.testing.assert_array_equal(once, again)


def test_more_than_may_be_skipped_end_the_run(images):
    source = skip_unreadable(images, at_most=1)
    with (
        pytest.warns(UserWarning, match="skipped example 2, 1 of at most 1"),
        pytest.raises(RuntimeError, match=r"2 examples cannot be read, 1 may be skipped; the last is 3: .*3\.png"),
    ):
        source[2]


def test_an_index_that_does_not_exist_is_not_skipped(images):
    with pytest.raises(IndexError):
        SkippingSource(images, at_most=5)[17]
    with pytest.raises(ValueError, match="at_most is -1"):
        skip_unreadable(images, at_most=-1)


def test_reader_processes_can_have_it(images):
    source = skip_unreadable(images, at_most=3)
    again = pickle.loads(pickle.dumps(source))
    assert (again.name, again.at_most, len(again)) == (source.name, 3, len(source))
    with again.lock:
        pass
