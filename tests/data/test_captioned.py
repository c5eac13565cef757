from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.captioned import captioned_latents
from data.checks import check_batch
from data.fingerprint import fingerprint
from data.order import batches

RNG = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "latents": RNG.standard_normal((11, 4, 6, 2)).astype(np.float16),
    "text": RNG.standard_normal((11, 3, 5)).astype(np.float16),
    "empty": RNG.standard_normal((3, 5)).astype(np.float32),
}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "pictures")


def write(folder: Path, **changes: Any) -> Path:
    """The three files, with others in their place, or without those that are None."""
    folder.mkdir(exist_ok=True)
    for name, array in (ARRAYS | changes).items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def test_an_example_is_a_latent_and_its_caption_in_float32(folder):
    source = captioned_latents(folder)
    assert (len(source), source.shape, source.num_classes) == (11, (4, 6, 2), 0)
    example: Any = source[7]
    assert {name: array.dtype for name, array in example.items()} == {"image": np.float32, "text": np.float32}
    np.testing.assert_array_equal(example["image"], ARRAYS["latents"][7])
    np.testing.assert_array_equal(example["text"], ARRAYS["text"][7])
    np.testing.assert_array_equal(source.empty, ARRAYS["empty"])
    with pytest.raises(IndexError, match=r"no example 11, only 0 \.\. 10"):
        source[11]


def test_the_arrays_stay_on_disk(folder):
    source = captioned_latents(folder)
    assert isinstance(source.image, np.memmap)
    assert isinstance(source.text, np.memmap)


def test_batches_hold_latents_beside_their_own_captions(folder):
    source = captioned_latents(folder)
    seen = []
    taken: Any = islice(batches(source, seed=0, batch_size=4), 11)
    for batch in taken:
        check_batch(batch, shape=source.shape, num_classes=0)
        assert batch["text"].shape == (4, 3, 5)
        for image, text in zip(batch["image"], batch["text"], strict=True):
            (i,) = np.flatnonzero((ARRAYS["latents"] == image).all(axis=(1, 2, 3)))
            np.testing.assert_array_equal(text, ARRAYS["text"][i])
            seen.append(i)
    assert np.bincount(seen).tolist() == [4] * 11


@pytest.mark.parametrize("changed", ["latents", "text", "empty"])
def test_the_fingerprint_tells_other_latents_and_other_texts(folder, changed):
    before = fingerprint(captioned_latents(folder), seed=0, batch_size=4)
    assert fingerprint(captioned_latents(folder), seed=0, batch_size=4) == before
    write(folder, **{changed: ARRAYS[changed] + np.float16(0.5)})
    assert fingerprint(captioned_latents(folder), seed=0, batch_size=4) != before


@pytest.mark.parametrize("name", ["latents", "text", "empty"])
def test_a_missing_file_is_named_with_what_it_should_hold(tmp_path, name):
    folder = write(tmp_path / "pictures", **{name: None})
    with pytest.raises(FileNotFoundError, match=rf"pictures lacks {name}\.npy; .*{name}\.npy \["):
        captioned_latents(folder)
    with pytest.raises(FileNotFoundError, match=r"no folder at .*nowhere; it should be .*empty\.npy"):
        captioned_latents(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"text": ARRAYS["text"][:10]}, ValueError, "11 latents and 10 texts"),
        ({"latents": ARRAYS["latents"][:0], "text": ARRAYS["text"][:0]}, ValueError, "0 latents and 0 texts"),
        ({"empty": ARRAYS["empty"][:2]}, ValueError, r"texts have shape \(3, 5\) and the empty one \(2, 5\)"),
        (
            {"empty": ARRAYS["empty"][None]},
            ValueError,
            r"empty\.npy has shape \(1, 3, 5\), expected \[length",
        ),
        ({"latents": ARRAYS["latents"][..., 0]}, ValueError, r"latents\.npy has shape \(11, 4, 6\), expected \[n"),
        ({"latents": ARRAYS["latents"].transpose(0, 3, 1, 2)}, ValueError, r"\(2, 4, 6\) look like channels first"),
        ({"latents": ARRAYS["latents"].astype(float)}, TypeError, "float64, expected float16 or float32"),
        ({"text": np.zeros((11, 3, 5), np.int32)}, TypeError, "int32, expected float16 or float32"),
        ({"latents": ARRAYS["latents"] / np.float16(0.18215)}, ValueError, r"deviation of 5\.\d+, .*factor, 0\.18215"),
        ({"text": np.full((11, 3, 5), np.inf, np.float16)}, ValueError, "number 0 of 16 examples .* not finite"),
        ({"empty": np.full((3, 5), np.nan, np.float32)}, ValueError, r"empty\.npy holds numbers that are not finite"),
        ({"text": np.array([{}])}, ValueError, r"cannot read .*text\.npy as \.npy"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_was_found(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        captioned_latents(write(tmp_path / "pictures", **changes))


def test_a_truncated_file_is_named(folder):
    path = folder / "latents.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot read .*latents\.npy"):
        captioned_latents(folder)
