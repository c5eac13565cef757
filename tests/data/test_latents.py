import json
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.checks import check_batch
from data.fingerprint import fingerprint
from data.latents import latents
from data.latents_scale import from_model_scale, multiplied, sample_posterior, standardised, to_model_scale
from data.latents_writing import write_latents
from data.memory import ArraySource
from data.order import batches

RNG = np.random.default_rng(0)
IMAGES = ArraySource("eleven", RNG.integers(0, 256, (11, 4, 4, 3), np.uint8), np.arange(11, dtype=np.int32) % 3, 3)
ENCODER = {"sha256": "ab" * 32, "config_file": "configs/a.py", "step": 7, "config": {"width": 8}}


def moments(image):
    """Two channels at half the resolution, of unlike size and place."""
    coarse = image[:, ::2, ::2].astype(np.float32)
    mean = np.stack([coarse[..., 0] / 50, 3 - coarse[..., 1] / 200], axis=-1)
    return mean, np.stack([coarse[..., 2] / 100 - 2, np.full_like(coarse[..., 0], -1.5)], axis=-1)


class Encoder:
    """Counts its calls, refuses another shape, and may break down."""

    def __init__(self, breaks_at=None):
        self.calls, self.breaks_at = 0, breaks_at

    def __call__(self, image):  # noqa: D102
        assert image.shape == (2, 4, 4, 3)
        assert image.dtype == np.uint8
        if self.calls == self.breaks_at:
            raise KeyboardInterrupt
        self.calls += 1
        return moments(image)


def write(folder, encode=None, **changes):
    given: dict[str, Any] = {"encoder": ENCODER, "scale_of": standardised, "batch_size": 2, "shard_size": 4} | changes
    images = given.pop("images", IMAGES)
    return write_latents(folder, images, encode or Encoder(), **given)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "latents")
    return tmp_path / "latents"


# ---- What was written is what is read --------------------------------------------------------------------------------


def test_every_example_comes_back_with_its_label_and_both_moments(folder):
    source = latents(folder)
    assert (len(source), source.shape, source.num_classes) == (11, (2, 2, 2), 3)
    assert source.name == "eleven in latents of abababababab"
    mean, logvar = moments(IMAGES.image)
    for index in (0, 3, 4, 10):
        example = source[index]
        np.testing.assert_array_equal(example["image"], mean[index])
        np.testing.assert_array_equal(example["logvar"], logvar[index])
        assert example["label"] == index % 3
        assert {example[name].dtype for name in ("image", "logvar")} == {np.dtype("float32")}
    batch = source.take(np.array([10, 0, 5]))
    np.testing.assert_array_equal(batch["image"], mean[[10, 0, 5]])
    np.testing.assert_array_equal(batch["logvar"], logvar[[10, 0, 5]])
    np.testing.assert_array_equal(batch["label"], [1, 0, 2])
    with pytest.raises(IndexError, match=r"no example 11, only 0 \.\. 10"):
        source[11]


def test_the_record_says_what_they_are(folder):
    record = json.loads((folder / "record.json").read_text())
    assert record["encoder"] == ENCODER
    assert record["images"]["name"] == "eleven"
    assert (record["count"], record["shape"], record["dtype"]) == (11, [2, 2, 2], "float32")
    mean, variance = (m.reshape(-1, 2).astype(np.float64) for m in moments(IMAGES.image))
    variance = np.exp(variance)
    np.testing.assert_allclose(record["mean"], mean.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(record["std"], np.sqrt(mean.var(axis=0) + variance.mean(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(record["shift"], record["mean"])
    np.testing.assert_allclose(record["factor"], 0.5 / np.array(record["std"]))
    files = {path.name for path in folder.iterdir()}
    assert files == {"record.json"} | {f"{kind}-0000{i}.npy" for kind in ("moments", "labels") for i in range(3)}


def test_images_without_labels(tmp_path):
    write(tmp_path / "plain", images=ArraySource("plain", IMAGES.image))
    source = latents(tmp_path / "plain")
    assert source.num_classes == 0
    assert set(source[0]) == set(source.take(np.arange(2))) == {"image", "logvar"}


def test_they_are_batched_checked_and_known_again_like_images(folder):
    source = latents(folder)
    for batch in islice(batches(source, seed=0, batch_size=4), 5):
        check_batch(batch, shape=source.shape, num_classes=3)
        assert set(batch) == {"image", "logvar", "label"}
    assert fingerprint(source, seed=0, batch_size=4)["content"] == fingerprint(source, seed=0, batch_size=4)["content"]


# ---- Scale -----------------------------------------------------------------------------------------------------------


def test_drawn_and_scaled_latents_have_the_deviation_that_was_asked_for(folder):
    source = latents(folder)
    mean, logvar = (jnp.tile(jnp.asarray(m), (400, 1, 1, 1)) for m in moments(IMAGES.image))
    z = to_model_scale(sample_posterior(jax.random.key(0), mean, logvar), source.scale)
    # 17,600 draws of each channel, 11 images: standard errors below 0.004.
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), 0, atol=0.015)
    np.testing.assert_allclose(z.std(axis=(0, 1, 2)), 0.5, atol=0.015)


def test_a_draw_has_the_mean_and_the_deviation_of_its_posterior():
    key, shape = jax.random.key(0), (2, 2)
    mean, logvar = jnp.full(shape, 3.0), jnp.full(shape, jnp.log(4.0))
    np.testing.assert_allclose(sample_posterior(key, mean, logvar), 3 + 2 * jax.random.normal(key, shape), rtol=1e-6)
    np.testing.assert_array_equal(sample_posterior(key, mean, jnp.full(shape, -jnp.inf)), mean)


@pytest.mark.parametrize("scale_of", [standardised, multiplied])
def test_the_scale_is_undone(scale_of):
    scale = scale_of((5.81, -2.15), (4.17, 3.28))
    z = 4 * jax.random.normal(jax.random.key(0), (3, 2, 2, 2))
    np.testing.assert_allclose(from_model_scale(to_model_scale(z, scale), scale), z, rtol=1e-5, atol=1e-5)


def test_the_scales_of_the_papers():
    z = jnp.array([5.81 + 4.17, -2.15])
    np.testing.assert_allclose(to_model_scale(z, standardised((5.81, -2.15), (4.17, 3.28))), [0.5, 0], atol=1e-6)
    np.testing.assert_allclose(to_model_scale(z, multiplied((5.81, -2.15), (4.17, 3.28))), 0.18215 * z, rtol=1e-6)


def test_a_channel_that_never_changes_has_no_scale():
    with pytest.raises(ValueError, match=r"never changes, their deviations are \(1.0, 0.0\)"):
        standardised((0.0, 0.0), (1.0, 0.0))


# ---- Interrupted, and done already -----------------------------------------------------------------------------------


def test_an_interrupted_pass_is_gone_on_with_and_gives_the_same(tmp_path, folder):
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        write(other, Encoder(breaks_at=3))  # in the second shard
    assert {path.name for path in other.iterdir()} == {"unfinished.json", "moments-00000.npy", "labels-00000.npy"}
    with pytest.raises(FileNotFoundError, match="begun and not finished, run the same command again"):
        latents(other)
    with pytest.raises(ValueError, match=r"holds other latents(.|\n)*encoder.step: 7 there, 8 here"):
        write(other, encoder=ENCODER | {"step": 8})
    encode = Encoder()
    assert write(other, encode) == json.loads((folder / "record.json").read_text())
    assert encode.calls == 4  # the first of three shards was there
    for path in folder.iterdir():
        assert (other / path.name).read_bytes() == path.read_bytes()


def test_what_is_done_is_not_done_again(folder):
    encode = Encoder()
    assert write(folder, encode) == latents(folder).record
    assert encode.calls == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ENCODER | {"config": {"width": 16}}}, r"encoder\.config\.width: 8 there, 16 here"),
        (
            {"images": ArraySource("others", IMAGES.image, IMAGES.label, 3)},
            r"images\.name: 'eleven' there",
        ),
        ({"images": ArraySource("eleven", 255 - IMAGES.image, IMAGES.label, 3)}, r"images\.content"),
        ({"scale_of": multiplied}, r"factor of each channel: \(.*\) there, \(0.18215, 0.18215\) here"),
    ],
)
def test_a_folder_of_other_latents_is_left_alone(folder, changes, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=message):
        write(folder, **changes)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "moments-00000.npy").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and has no record"):
        write(tmp_path)


def test_moments_that_are_not_finite_are_refused(tmp_path):
    def broken(image):
        mean, logvar = moments(image)
        return mean, logvar * np.where(image[:, :1, :1, :1] == IMAGES.image[5, 0, 0, 0], np.nan, 1)

    with pytest.raises(ValueError, match=r"latents of eleven, 4 \.\. 5, hold NaN"):
        write(tmp_path / "new", broken)


# ---- Refused on mismatch ---------------------------------------------------------------------------------------------


def test_what_fits_is_read(folder):
    latents(folder, encoder=ENCODER, shape=(2, 2, 2), scale_of=standardised)


def test_another_encoder_shape_or_scale_is_refused_with_both(folder):
    other = {"sha256": "cd" * 32, "config_file": "configs/b.py", "step": 9}
    with pytest.raises(ValueError, match="not those of this run") as error:
        latents(folder, encoder=other, shape=(2, 2, 4), scale_of=multiplied)
    encoder, shape, shift, factor = str(error.value).splitlines()[1:]
    there, here = "abababababab (config_file configs/a.py, step 7)", "cdcdcdcdcdcd (config_file configs/b.py, step 9)"
    assert encoder == f"  encoder: {there} there, {here} here"
    assert shape == "  shape: (2, 2, 2) there, (2, 2, 4) here"
    assert shift.endswith("there, (0, 0) here")
    assert factor.endswith("there, (0.18215, 0.18215) here")


def without(folder, key):
    record = json.loads((folder / "record.json").read_text())
    del record[key]
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "record.json").unlink(), FileNotFoundError, "is this a folder of latents?"),
        (lambda folder: (folder / "record.json").write_text("{"), ValueError, "is not JSON"),
        (lambda folder: without(folder, "factor"), ValueError, "lacks factor; it has"),
        (lambda folder: without(folder, "format_version"), ValueError, "has format None, this version reads 1"),
        (lambda folder: (folder / "moments-00001.npy").unlink(), FileNotFoundError, "moments-00001.npy is missing"),
        (
            lambda folder: (folder / "moments-00001.npy").write_bytes((folder / "moments-00001.npy").read_bytes()[:-9]),
            ValueError,
            r"cannot read .*moments-00001\.npy",
        ),
        (
            lambda folder: np.save(folder / "labels-00002.npy", np.zeros(4, np.int32)),
            ValueError,
            r"labels-00002\.npy holds int32\[4\], its record says int32\[3\]",
        ),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, error, message):
    damage(folder)
    with pytest.raises(error, match=message):
        latents(folder)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder of latents at .*nowhere"):
        latents(tmp_path / "nowhere")
