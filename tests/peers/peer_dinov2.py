"""DINOv2 beside timm and transformers, at full width and a few blocks, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import interpolate
from transformers import Dinov2Config, Dinov2Model

from models import dinov2 as network
from models.dinov2 import DINOV2_SIZES, DINOv2
from models.pretrained import read
from models.pretrained.dinov2 import dinov2

TIMM = {"S": "small", "B": "base", "L": "large", "g": "giant"}


def randomise(model):
    """Every parameter, since many begin at 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = 0.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.5
        parameter.copy_(
            scale * torch.randn(parameter.shape, generator=generator) + (0.5 if parameter.dim() == 1 else 0)
        )
    return model.eval()


def compare(what, found, theirs):
    theirs = theirs.numpy()
    error = np.abs(np.asarray(found) - theirs).max() / np.abs(theirs).max()
    print(f"{what}: {error:.1e}")
    assert error < 1e-5, what


@pytest.mark.parametrize("size", TIMM)
def test_parameters_of_the_published_sizes(size):
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{TIMM[size]}_patch14_dinov2", pretrained=False, num_classes=0)
    module = DINOv2(*DINOV2_SIZES[size], gated=size == "g")
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 518, 518, 3)))
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    print(f"DINOv2 {size}: {found:,}")
    assert found == sum(parameter.numel() for parameter in theirs.parameters())


@pytest.mark.parametrize("size", ["S", "g"])
@pytest.mark.parametrize("image", [(56, 84), (518, 518)], ids=str)
def test_timm(size, image, tmp_path):
    name = f"vit_{TIMM[size]}_patch14_dinov2"
    theirs = randomise(timm.create_model(name, pretrained=False, num_classes=0, depth=2, dynamic_img_size=True))
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    module, params = dinov2(read(tmp_path / "timm.pth"))
    x = torch.randn((1, 3, *image), generator=torch.Generator().manual_seed(1))
    found = jax.jit(module.apply)(params, jnp.asarray(np.moveaxis(x.numpy(), 1, -1)))
    compare(f"timm, {size}, {image}", found, theirs.forward_features(x))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("image", [(56, 84), (518, 518)], ids=str)
def test_transformers(gated, image, tmp_path):
    shape = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, "mlp_ratio": 4}
    theirs = randomise(Dinov2Model(Dinov2Config(**shape, image_size=518, use_swiglu_ffn=gated)))
    theirs.save_pretrained(tmp_path)
    module, params = dinov2(read(tmp_path / "model.safetensors"))
    assert module.gated == gated
    x = torch.randn((1, 3, *image), generator=torch.Generator().manual_seed(1))
    found = jax.jit(module.apply)(params, jnp.asarray(np.moveaxis(x.numpy(), 1, -1)))
    compare(f"transformers, gated {gated}, {image}", found, theirs(x).last_hidden_state)


def test_positions_as_metas_code_asks_torch_for_them():
    table = torch.randn((1, 8, 37, 37), generator=torch.Generator().manual_seed(0))
    for rows, columns in ((16, 16), (4, 6), (50, 40)):
        factors = ((rows + 0.1) / 37, (columns + 0.1) / 37)
        theirs = interpolate(table, scale_factor=factors, mode="bicubic")[0].permute(1, 2, 0)
        found = network.to_scale(jnp.asarray(table[0].permute(1, 2, 0).numpy()), rows, columns)
        compare(f"positions to {rows} x {columns}", found, theirs)
