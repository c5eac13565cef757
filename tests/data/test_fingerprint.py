import json

import numpy as np
import pytest

from data.fingerprint import fingerprint
from data.memory import ArraySource

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8)
LABEL = np.arange(40, dtype=np.int32) % 4
SAME = ArraySource("forty", IMAGE, LABEL, 4)


def test_a_fingerprint_survives_json():
    print_ = fingerprint(SAME, seed=1, batch_size=8)
    assert json.loads(json.dumps(print_)) == print_
    assert print_ == fingerprint(ArraySource("forty", IMAGE.copy(), LABEL.copy(), 4), seed=1, batch_size=8)


@pytest.mark.parametrize(
    ("source", "seed", "batch_size", "differs"),
    [
        (SAME, 2, 8, {"order", "seed"}),
        (SAME, 1, 4, {"batch_size"}),
        (ArraySource("other", IMAGE, LABEL, 4), 1, 8, {"name"}),
        (ArraySource("forty", IMAGE, LABEL, 5), 1, 8, {"num_classes"}),
        (ArraySource("forty", 255 - IMAGE, LABEL, 4), 1, 8, {"content"}),
        (ArraySource("forty", IMAGE, LABEL[::-1].copy(), 4), 1, 8, {"content"}),
        (ArraySource("forty", IMAGE[:39], LABEL[:39], 4), 1, 8, {"content", "length", "order"}),
        (ArraySource("forty", IMAGE.reshape(40, 4, 1, 1), LABEL, 4), 1, 8, {"shape"}),
    ],
)
def test_a_fingerprint_says_what_changed(source, seed, batch_size, differs):
    old, new = fingerprint(SAME, seed=1, batch_size=8), fingerprint(source, seed=seed, batch_size=batch_size)
    assert {key for key in old if old[key] != new[key]} == differs
