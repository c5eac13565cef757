"""Made-up photographs in ImageNet's files, read as ImageNet is."""

import io

import numpy as np
import pytest
from PIL import Image

import data
from benchmarks import photographs


def test_they_have_the_size_of_imagenets():
    files = list(photographs.jpegs(5))
    assert 90e3 < np.mean([len(file) for file in files]) < 130e3
    with Image.open(io.BytesIO(files[0])) as image:
        assert image.size == (500, 375)
        assert image.format == "JPEG"
    assert len(set(files)) == 5


def test_they_are_read_as_the_real_ones_are(tmp_path):
    photographs.write(tmp_path, 10, files=4)
    source = data.tfds_source("imagenet2012", data_dir=tmp_path, size=64)
    assert (len(source), source.shape, source.num_classes) == (10, (64, 64, 3), 1000)
    batch = source.take(np.arange(10))
    np.testing.assert_array_equal(batch["label"], np.arange(10))
    assert batch["image"].std() > 30
    np.testing.assert_array_equal(source[7]["image"], batch["image"][7])


def test_fewer_than_one_a_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="4 files need at least as many photographs, got 3"):
        photographs.write(tmp_path, 3)
