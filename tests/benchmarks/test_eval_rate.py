"""What is counted, on pixels; nothing is timed against anything."""

import numpy as np
import pytest

from benchmarks.eval_rate import JUDGED, measure, random_weights, ratio, table
from eval import pixels
from models.pretrained.contents import tensors_in
from models.pretrained.inception import inception

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8)


def test_a_row_adds_up():
    row, _ = measure(pixels, IMAGES, None, batch_size=16)
    assert row.what == "pixels, none"
    rate, distance, memory = row.images_per_second, row.distance_seconds, row.host_mebibytes
    assert rate and distance is not None and memory  # noqa: PT018
    assert row.seconds_per_10k == JUDGED / rate + distance
    assert memory > 10


def test_a_peer_that_is_not_here_says_so(monkeypatch):
    monkeypatch.setattr("benchmarks.eval_rate.find_spec", lambda name: None)
    _, row = measure(pixels._replace(name="inception"), IMAGES, None, batch_size=16)
    assert row.what == "pytorch-fid: not here"
    assert row.images_per_second is None
    assert table([row]).row_count == 1


def test_the_ratio_is_of_pairs():
    assert ratio([(1.0, 2.0), (2.0, 2.0), (10.0, 30.0)]) == 2.0


def test_random_weights_are_those_of_inception(tmp_path):
    pytest.importorskip("safetensors")
    assert inception(
        tensors_in(random_weights(tmp_path / "random.safetensors"))
    )  # refuses what is missing or left over
