import numpy as np
import pytest

from data.absent import absent
from data.fingerprint import fingerprint
from data.source import Source, take

REASON = "give it with --config.data=FOLDER"


def test_its_facts_are_known_and_reading_it_says_what_to_do():
    source = absent("imagenet64", (64, 64, 3), 1000, REASON)
    assert isinstance(source, Source)
    assert (source.name, source.shape, source.num_classes, len(source)) == ("imagenet64", (64, 64, 3), 1000, 0)
    for index in (0, 7, -1):
        with pytest.raises(FileNotFoundError, match=f"imagenet64 is not here: {REASON}"):
            source[index]
    with pytest.raises(FileNotFoundError, match=REASON):
        take(source, np.arange(2))


def test_it_has_a_fingerprint_that_tells_it_from_data():
    print_of = fingerprint(absent("imagenet64", (64, 64, 3), 1000, REASON), seed=0, batch_size=8)
    assert (print_of["length"], print_of["order"], print_of["shape"]) == (0, "empty", [64, 64, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", (64, 64), 10, REASON), r"shape is \(64, 64\), it must be \(height, width, channels\)"),
        (("a", (64, 0, 3), 10, REASON), r"shape is \(64, 0, 3\)"),
        (("a", (64, 64, 3), -1, REASON), "num_classes is -1, it must not be negative"),
        (("a", (64, 64, 3), 10, ""), "reason is empty"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_facts_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        absent(*arguments)
