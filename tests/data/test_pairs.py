import json
from itertools import islice
from typing import Any

import numpy as np
import pytest

from data.fingerprint import fingerprint
from data.order import batches
from data.pairs import joined, pairs
from data.pairs_writing import write_pairs

ORIGIN = {"sha256": "ab" * 32, "seed": 3, "solver_steps": 4}


def pair(indices):
    """Images beyond [-1, 1] by a little, as a flow makes them."""
    noise = np.stack([np.random.default_rng(int(i)).standard_normal((4, 4, 3)) for i in indices]).astype(np.float32)
    return np.tanh(noise) * np.float32(1.02), noise, indices % 3


class Make:
    """Counts its calls, refuses another number of pairs, and may break down."""

    def __init__(self, breaks_at=None):
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, indices):  # noqa: D102
        assert indices.shape == (2,)
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        return pair(indices)


def write(folder, make=None, **changes):
    given: dict[str, Any] = {"name": "of a flow", "origin": ORIGIN, "count": 11, "shape": (4, 4, 3), "num_classes": 3}
    given |= {"batch_size": 2, "shard_size": 4} | changes
    return write_pairs(folder, make or Make(), **given)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "pairs")
    return tmp_path / "pairs"


# ---- What was written is what is read --------------------------------------------------------------------------------


def test_every_pair_comes_back_to_the_bit(folder):
    source = pairs(folder, shape=(4, 4, 3), num_classes=3)
    assert (len(source), source.shape, source.num_classes, source.name) == (11, (4, 4, 3), 3, "of a flow")
    image, noise, label = pair(np.arange(11))
    batch: dict[str, Any] = {**source.take(np.array([10, 0, 3, 4]))}
    assert {name: values.dtype.name for name, values in batch.items()} == {
        "image": "float32",
        "noise": "float32",
        "label": "int32",
    }
    for name, expected in (("image", image), ("noise", noise), ("label", label)):
        np.testing.assert_array_equal(batch[name], expected[[10, 0, 3, 4]])
        np.testing.assert_array_equal(source[5][name], expected[5])
    with pytest.raises(IndexError, match=r"no example 11, only 0 \.\. 10"):
        source[11]


def test_eight_bits_are_clipped_and_rounded_when_they_are_asked_for(tmp_path):
    write(tmp_path / "small", eight_bit=True)
    batch = pairs(tmp_path / "small").take(np.arange(11))
    assert (batch["image"].dtype, batch["noise"].dtype) == (np.uint8, np.float32)
    image, noise, _ = pair(np.arange(11))
    np.testing.assert_allclose(batch["image"] / 127.5 - 1, np.clip(image, -1, 1), atol=1 / 255 + 1e-6)
    np.testing.assert_array_equal(batch["noise"], noise)


def test_without_labels(tmp_path):
    write(tmp_path / "plain", num_classes=0)
    source = pairs(tmp_path / "plain")
    assert set(source[0]) == set(source.take(np.arange(2))) == {"image", "noise"}
    assert not list((tmp_path / "plain").glob("labels*"))


def test_they_are_batched_and_known_again_like_images(folder, tmp_path):
    source = pairs(folder)
    for batch in islice(batches(source, seed=0, batch_size=4), 5):
        assert set(batch) == {"image", "noise", "label"}
    write(tmp_path / "other", name="of another flow", origin=ORIGIN | {"sha256": "cd" * 32})
    known, other = (fingerprint(s, seed=0, batch_size=4) for s in (source, pairs(tmp_path / "other")))
    assert known == fingerprint(pairs(folder), seed=0, batch_size=4)
    assert known != other


# ---- Several folders -------------------------------------------------------------------------------------------------


def test_joined_folders_are_one_after_the_other(folder, tmp_path):
    write(tmp_path / "real", name="of real images", origin=ORIGIN | {"images": "eleven"}, count=5, shard_size=2)
    both = joined(pairs(folder), pairs(tmp_path / "real"))
    assert (len(both), both.name) == (16, "of a flow and of real images")
    image, noise, label = pair(np.array([10, 0, 4]))
    batch: dict[str, Any] = {**both.take(np.array([10, 11, 15]))}
    for name, expected in (("image", image), ("noise", noise), ("label", label)):
        np.testing.assert_array_equal(batch[name], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": ORIGIN | {"sha256": "cd" * 32}}, "sha256 of the flow abab.* and cdcd"),
        ({"eight_bit": True}, "dtype float32 and uint8"),
        ({"num_classes": 0}, "num_classes 3 and 0"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(folder, tmp_path, changes, message):
    write(tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=f"cannot be joined: {message}"):
        joined(pairs(folder), pairs(tmp_path / "other"))


# ---- Interrupted, and done already -----------------------------------------------------------------------------------


def test_an_interrupted_pass_is_gone_on_with_and_gives_the_same(tmp_path, folder):
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        write(other, Make(breaks_at=3))  # in the second shard
    assert {path.name for path in other.iterdir()} == {
        *("unfinished.json", "images-00000.npy", "noise-00000.npy", "labels-00000.npy")
    }
    with pytest.raises(FileNotFoundError, match="begun and not finished, run the same command again"):
        pairs(other)
    with pytest.raises(ValueError, match=r"holds other pairs(.|\n)*origin.seed: 3 there, 4 here"):
        write(other, origin=ORIGIN | {"seed": 4})
    (other / "noise-00001.npy").write_bytes(b"half of it")  # a shard without its images is not whole
    make = Make()
    assert write(other, make) == json.loads((folder / "record.json").read_text())
    assert make.calls == 4  # the first of three shards was there
    assert {path.name for path in other.iterdir()} == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert (other / path.name).read_bytes() == path.read_bytes()


def test_what_is_done_is_not_done_again(folder):
    make = Make()
    assert write(folder, make) == pairs(folder).records[0]
    assert make.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": ORIGIN | {"sha256": "cd" * 32}}, r"origin\.sha256: 'abab"),
        ({"origin": ORIGIN | {"solver_steps": 8}}, r"origin\.solver_steps: 4 there, 8 here"),
        ({"count": 12}, "count: 11 there, 12 here"),
        ({"eight_bit": True}, "dtype: 'float32' there, 'uint8' here"),
    ],
)
def test_a_folder_of_other_pairs_is_left_alone(folder, changes, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=message):
        write(folder, **changes)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_progress_says_how_many_how_fast_and_how_long(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data.writing_progress.SECONDS_BETWEEN_LINES", 0.0)
    write(tmp_path / "told")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("pairs 2/11  ")
    assert lines[-1].startswith("pairs 11/11  ")
    assert lines[-1].endswith("a second  0 s left")


# ---- Refused ---------------------------------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_refused(tmp_path):
    def broken(indices):
        image, noise, label = pair(indices)
        return image, np.where(label[:, None, None, None] == 2, np.nan, noise), label

    with pytest.raises(ValueError, match=r"of a flow, 2 \.\. 3: NaN"):
        write(tmp_path / "new", broken)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"unfinished.json"}


def test_labels_out_of_range_are_refused(tmp_path):
    def broken(indices):
        image, noise, label = pair(indices)
        return image, noise, label + 1

    with pytest.raises(ValueError, match=r"of a flow, 2 \.\. 3: labels out of range"):
        write(tmp_path / "new", broken)


def test_nothing_to_make_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to make: 0 pairs"):
        write(tmp_path / "none", count=0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shape": (8, 8, 3)}, r"shape \(4, 4, 3\) there, \(8, 8, 3\) here"),
        ({"num_classes": 0}, "classes 3 there, 0 here"),
    ],
)
def test_pairs_of_another_run_are_refused_with_both(folder, asked, message):
    with pytest.raises(ValueError, match=f"are not those of this run: {message}"):
        pairs(folder, **asked)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "record.json").unlink(), FileNotFoundError, "is this a folder of pairs?"),
        (lambda folder: (folder / "noise-00001.npy").unlink(), FileNotFoundError, "noise-00001.npy is missing"),
        (
            lambda folder: np.save(folder / "images-00002.npy", np.zeros((3, 4, 4, 3), np.uint8)),
            ValueError,
            r"images-00002\.npy holds uint8\[3, 4, 4, 3\], its record says float32\[3, 4, 4, 3\]",
        ),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, error, message):
    damage(folder)
    with pytest.raises(error, match=message):
        pairs(folder)
