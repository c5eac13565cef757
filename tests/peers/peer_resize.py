"""The resizes beside those whose conventions they name."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from torch.nn.functional import interpolate
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from eval import resize

SIDE = 299


@pytest.fixture(params=[(32, 32), (64, 48), (299, 299), (400, 512)], ids=str)
def images(request):
    """Random images, enlarged, unchanged and reduced."""
    return np.random.default_rng(0).integers(0, 256, (2, *request.param, 3), dtype=np.uint8)


def as_torch(images):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1))).float()


def ours(function, images):
    return np.moveaxis(np.asarray(function(jnp.asarray(images), SIDE)), -1, 1)


def test_tensorflow_1(images):
    theirs = interpolate_bilinear_2d_like_tensorflow1x(as_torch(images), size=(SIDE, SIDE), align_corners=False)
    np.testing.assert_array_equal(ours(resize.tf1_bilinear, images), theirs.numpy())


def test_torch_bilinear(images):
    theirs = interpolate(as_torch(images), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    found = np.abs(ours(resize.torch_bilinear, images) - theirs.numpy()).max()
    print(f"torch_bilinear from {images.shape[1:3]}: {found:.1e} of 255")
    assert found < 1e-3


def test_torch_bicubic(images):
    theirs = interpolate(as_torch(images), size=(SIDE, SIDE), mode="bicubic", antialias=True)
    found = np.abs(ours(resize.torch_bicubic, images) - theirs.numpy()).max()
    print(f"torch_bicubic from {images.shape[1:3]}: {found:.1e} of 255")
    assert found < 1e-3


def test_clean_fid(images):
    resizer = make_resizer("PIL", False, "bicubic", (SIDE, SIDE))
    theirs = np.stack([resizer(image) for image in images])
    np.testing.assert_array_equal(resize.clean_fid_bicubic(images, SIDE), theirs)
