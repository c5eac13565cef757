"""LPIPS beside the `lpips` package: its own weights of the layers, and random trunks."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import lpips as theirs
import numpy as np
import pytest
import torch
from jax.lax import Precision

from losses import lpips
from models import alexnet, vgg
from models.pretrained import read
from models.pretrained.lpips import alexnet as convert_alexnet
from models.pretrained.lpips import vgg as convert_vgg
from tests.drawn import trunk_tensors

WEIGHTS = Path(theirs.__file__).parent / "weights" / "v0.1"


@pytest.mark.parametrize(
    ("name", "convert", "features"),
    [
        ("vgg", convert_vgg, partial(vgg.lpips_features, precision=Precision.HIGHEST)),
        ("alex", convert_alexnet, partial(alexnet.lpips_features, precision=Precision.HIGHEST)),
    ],
)
def test_distances(name, convert, features):
    network = theirs.LPIPS(net=name, pnet_rand=True, verbose=False).eval()
    tensors = trunk_tensors(name)
    state = network.state_dict()
    for key in state:
        if key.startswith("net."):
            _, _, number, kind = key.split(".")
            state[key] = torch.from_numpy(tensors[f"features.{number}.{kind}"])
    network.load_state_dict(state)

    trunk, weights = convert(tensors, read(WEIGHTS / f"{name}.pth"))
    distance = jax.jit(lambda trunk, a, b: lpips(a, b, features=features(trunk), weights=weights))
    generator = np.random.default_rng(0)
    for noise in (1.0, 0.1):
        a = generator.uniform(-1, 1, (3, 64, 48, 3)).astype(np.float32)
        b = (a + noise * generator.standard_normal(a.shape)).clip(-1, 1).astype(np.float32)
        found = np.asarray(distance(trunk, jnp.asarray(a), jnp.asarray(b)))
        their = network(*(torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in (a, b))).numpy().reshape(-1)
        print(f"lpips, {name}, noise {noise}: {np.abs(found / their - 1).max():.1e} of {their.mean():.3f}")
        np.testing.assert_allclose(found, their, rtol=1e-5)
