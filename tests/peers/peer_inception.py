"""Inception-v3 beside pytorch-fid and torch-fidelity, with the same random weights from files that torch wrote."""

import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_fid.inception
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eval.resize import tf1_bilinear, torch_bilinear
from models.inception import SIDE, InceptionV3
from models.pretrained import read
from models.pretrained.inception import inception

FIDELITY = {
    "64": "pool64",
    "192": "pool192",
    "768": "pool768",
    "2048": "pool2048",
    "logits_unbiased": "logits_unbiased",
    "logits": "logits",
}


@pytest.fixture(scope="module")
def variables(inception_file, inception_state):
    """Ours, from that file, and found to be the same from the container that torch had before 1.6."""
    legacy = inception_file.with_name("legacy.pth")
    torch.save(inception_state, legacy, _use_new_zipfile_serialization=False)
    one, other = read(inception_file), read(legacy)
    assert one.keys() == other.keys() == inception_state.keys()
    for name, tensor in inception_state.items():
        np.testing.assert_array_equal(one[name], tensor.numpy())
        np.testing.assert_array_equal(other[name], tensor.numpy())
    return inception(one)


@pytest.fixture(scope="module", params=[(32, 32), (320, 400)], ids=str)
def images(request):
    """Noise that is enlarged or reduced, the second image darker: means over space would be alike otherwise."""
    images = np.random.default_rng(0).integers(0, 256, (2, *request.param, 3), dtype=np.uint8)
    return np.stack([images[0], images[1] // 3])


def compare(what, found, theirs):
    found, theirs = np.asarray(found), theirs.numpy()
    error = np.max(np.abs(found - theirs).max(1) / np.abs(theirs).max(1))
    variety = np.abs(theirs[0] - theirs[1]).max() / np.abs(theirs).max()
    print(f"{what}: {error:.1e}; the images themselves differ by {variety:.2f}")
    assert variety > 0.01, what
    assert error < 1e-5, what


def test_pytorch_fid(inception_state, variables, images, monkeypatch):
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **options: inception_state)
    network = pytorch_fid.inception.InceptionV3([0, 1, 2, 3]).eval()
    theirs = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy()).float() / 255)
    x = torch_bilinear(jnp.asarray(images), SIDE)
    taps = InceptionV3().apply(variables, 2 * (x / 255) - 1)
    for name, their in zip(("pool64", "pool192", "pool768", "pool2048"), theirs, strict=True):
        compare(f"pytorch-fid, {images.shape[1:3]}, {name}", getattr(taps, name), their.mean(dim=(2, 3)))


def test_torch_fidelity(inception_file, variables, images):
    path = str(inception_file)
    network = FeatureExtractorInceptionV3("inception", list(FIDELITY), feature_extractor_weights_path=path).eval()
    theirs = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy()))
    x = tf1_bilinear(jnp.asarray(images), SIDE)
    taps = InceptionV3().apply(variables, (x - 128) / 128)
    for name, their in zip(FIDELITY.values(), theirs, strict=True):
        compare(f"torch-fidelity, {images.shape[1:3]}, {name}", getattr(taps, name), their)
