"""Stable Diffusion's autoencoder beside diffusers, whole and in tiles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from models.pretrained.stable_autoencoder import read_autoencoder
from models.tiles import tiled

SETTINGS = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Their network, ours, and our parameters, with random weights."""
    theirs = AutoencoderKL(**SETTINGS, sample_size=32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            scale = (1.4 / np.prod(parameter.shape[1:])) ** 0.5 if parameter.dim() > 1 else 0.2
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1) * 0.5)
    folder = tmp_path_factory.mktemp("vae")
    theirs.save_pretrained(folder)
    return theirs, *read_autoencoder(folder)


def compare(what, found, theirs):
    theirs = np.moveaxis(theirs.numpy(), 1, -1)
    error = np.abs(np.asarray(found) - theirs).max() / np.abs(theirs).max()
    print(f"diffusers, {what}: {error:.1e}")
    assert error < 1e-5, what


def as_torch(x):
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


def test_whole_images(both):
    theirs, module, params = both
    x = jax.random.uniform(jax.random.key(0), (2, 24, 40, 3), minval=-1)
    z = jax.random.normal(jax.random.key(1), (2, 6, 10, 4))
    mean, logvar = jax.jit(partial(module.apply, method="encode"))(params, x)
    posterior = theirs.encode(as_torch(x)).latent_dist
    compare("means", mean, posterior.mean)
    compare("log variances", logvar, posterior.logvar)
    compare("images", jax.jit(partial(module.apply, method="decode"))(params, z), theirs.decode(as_torch(z)).sample)


def test_tiles(both):
    theirs, module, params = both
    theirs.enable_tiling()
    assert (theirs.tile_sample_min_size, theirs.tile_latent_min_size, theirs.tile_overlap_factor) == (32, 8, 0.25)
    x = jax.random.uniform(jax.random.key(0), (1, 76, 60, 3), minval=-1)
    z = jax.random.normal(jax.random.key(1), (1, 19, 15, 4))
    moments = jax.jit(partial(module.apply, params, method=lambda module, x: module.encoder(x)))
    decode = jax.jit(partial(module.apply, params, method="decode"))
    mean, _ = jnp.split(tiled(moments, x, tile=32, overlap=8), 2, axis=-1)
    compare("means in tiles", mean, theirs.encode(as_torch(x)).latent_dist.mean)
    compare("images in tiles", tiled(decode, z, tile=8, overlap=2), theirs.decode(as_torch(z)).sample)
    theirs.disable_tiling()
    whole = np.moveaxis(theirs.decode(as_torch(z)).sample.numpy(), 1, -1)
    assert np.abs(np.asarray(tiled(decode, z, tile=8, overlap=2)) - whole).max() > 1e-2 * np.abs(whole).max()
