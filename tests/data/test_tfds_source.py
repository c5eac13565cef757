import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data.fingerprint import fingerprint
from data.memory import cached
from data.order import batches
from data.tfds_source import tfds_source

ROOT = Path(__file__).parents[2]
TFDS = ROOT.parent / "shared" / "tfds"
needs_mnist = pytest.mark.skipif(not (TFDS / "mnist").is_dir(), reason="MNIST is not prepared beside the repository")
needs_cifar10 = pytest.mark.skipif(not (TFDS / "cifar10").is_dir(), reason="CIFAR-10 is not prepared there")


@pytest.fixture
def mnist_copy(tmp_path):
    """A copy whose test split may be damaged; it has the info of the train split without its records."""
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json", "mnist-test.array_record-00000-of-00001"):
        shutil.copyfile(TFDS / "mnist" / "3.0.1" / name, folder / name)
    return folder


@needs_mnist
@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000), ("train[:10%]", 6000)])
def test_mnist(split, count):
    source = tfds_source("mnist", split=split, data_dir=TFDS)
    assert (len(source), source.shape, source.num_classes) == (count, (28, 28, 1), 10)
    assert source.name == f"mnist/3.0.1/{split}"
    for index in (0, count - 1):
        example = source[index]
        assert example["image"].shape == (28, 28, 1)
        assert example["image"].dtype == np.uint8
        assert example["label"].dtype == np.int32
        assert 0 <= example["label"] < 10


@needs_cifar10
@pytest.mark.parametrize(("split", "count"), [("train", 50000), ("test", 10000)])
def test_cifar10(split, count):
    source = tfds_source("cifar10", split=split, data_dir=TFDS)
    assert (len(source), source.shape, source.num_classes) == (count, (32, 32, 3), 10)
    batch = source.take(np.arange(200))
    assert batch["image"].shape == (200, 32, 32, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    assert set(batch["label"]) == set(range(10))


@needs_mnist
def test_take_reads_what_single_reads_give():
    source = tfds_source("mnist", split="test", data_dir=TFDS)
    batch = source.take(np.array([7, 9999, 0]))
    for row, index in enumerate((7, 9999, 0)):
        np.testing.assert_array_equal(batch["image"][row], source[index]["image"])
        assert batch["label"][row] == source[index]["label"]


@needs_mnist
def test_resuming_in_the_middle_gives_the_batches_of_an_uninterrupted_run():
    source = tfds_source("mnist", split="test[:50]", data_dir=TFDS)
    whole = list(islice(batches(source, seed=5, batch_size=16), 7))
    resumed = list(islice(batches(source, seed=5, batch_size=16, start_step=2), 5))
    in_memory = list(islice(batches(cached(source), seed=5, batch_size=16, start_step=2), 5))
    for expected, late, memory in zip(whole[2:], resumed, in_memory, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(late[key], expected[key])
            np.testing.assert_array_equal(memory[key], expected[key])


@needs_mnist
def test_cached_data_have_the_same_fingerprint():
    source = tfds_source("mnist", split="test[:50]", data_dir=TFDS)
    assert fingerprint(cached(source), seed=0, batch_size=8) == fingerprint(source, seed=0, batch_size=8)


@needs_mnist
def test_size_resizes():
    source = tfds_source("mnist", split="test", data_dir=TFDS, size=14)
    assert source.shape == source[0]["image"].shape == (14, 14, 1)


@needs_mnist
def test_tensorflow_is_never_imported():
    code = (
        "import sys\n"
        "from data import tfds_source\n"
        f"source = tfds_source('mnist', split='test', data_dir={str(TFDS)!r})\n"
        "assert source[0]['image'].shape == (28, 28, 1)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_missing_data_say_where_and_how(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        tfds_source("mnist", data_dir="~")
    message = str(caught.value)
    assert f"mnist/3.0.1 is not prepared at {tmp_path}/mnist/3.0.1" in message
    assert "expected dataset_info.json, features.json and mnist-*.array_record-* files" in message
    assert f"folders found in {tmp_path}: cifar10" in message
    assert f'tfds.builder("mnist", data_dir="{tmp_path}", file_format="array_record").download_and_prepare()' in message


@needs_mnist
def test_missing_records_are_named(mnist_copy):
    with pytest.raises(FileNotFoundError, match=r"1 of 1 record files are missing: .*mnist-train\.array_record"):
        tfds_source("mnist", split="train", data_dir=mnist_copy.parents[1])


@needs_mnist
def test_another_file_format_says_what_is_needed(mnist_copy):
    info = json.loads((mnist_copy / "dataset_info.json").read_text())
    (mnist_copy / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(FileNotFoundError, match=r"is prepared as tfrecord, but random access needs array_record"):
        tfds_source("mnist", split="test", data_dir=mnist_copy.parents[1])


@needs_mnist
def test_a_truncated_file_is_named_with_the_index(mnist_copy):
    file = mnist_copy / "mnist-test.array_record-00000-of-00001"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source = tfds_source("mnist", split="test", data_dir=mnist_copy.parents[1])
    message = r"cannot read example 3 of mnist/3.0.1/test from .*mnist-test\.array_record-00000-of-00001"
    with pytest.raises(RuntimeError, match=message):
        source[3]
    with pytest.raises(RuntimeError, match=message):
        source.take(np.array([3, 4]))


@needs_mnist
def test_a_corrupt_record_is_found_within_a_batch(mnist_copy):
    file = mnist_copy / "mnist-test.array_record-00000-of-00001"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))
    source = tfds_source("mnist", split="test", data_dir=mnist_copy.parents[1])
    assert source[0]["image"].shape == (28, 28, 1)
    with pytest.raises(RuntimeError, match=r"cannot read example \d+ of mnist/3.0.1/test from .*hash"):
        source.take(np.arange(10000))


@needs_mnist
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, r"tensorflow_datasets knows no 'mnits'; did you mean .*mnist"),
        ({"name": "mnist:9.9.9"}, r"cannot load 'mnist:9.9.9': .*only: 3.0.1"),
        ({"split": "tset"}, r"mnist/3.0.1 has no split 'tset': .*did you mean test"),
        ({"label_key": "digit"}, r"mnist/3.0.1 has no label 'digit', only label"),
        ({"image_key": "label"}, r"mnist/3.0.1 has no image 'label', only image"),
    ],
)
def test_unknown_names_suggest_the_closest(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfds_source(**{"name": "mnist", "data_dir": TFDS, **arguments})
