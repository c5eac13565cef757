"""A network is not built as deep or as large as a file says before its tensors were counted."""

import numpy as np
import pytest

from models.pretrained import convert, dit, edm2, read
from models.pretrained.stable_autoencoder import autoencoder_from
from models.pretrained.tensors import layers_of
from tests.models.pretrained import made_up, written

NUMBERS = np.arange(4, dtype=np.float32)


def test_the_largest_number_in_a_name_is_not_taken_for_a_depth(tmp_path):
    _, case, params = made_up.write(tmp_path / "file.pt", "sit")
    tensors = made_up.tensors(case, params) | {"blocks.1000000000.mlp.fc1.weight": NUMBERS}
    with pytest.raises(ValueError, match=r"3 layers .*, up to 1000000000; 2 is missing"):
        dit.convert(tensors, **case.given)


@pytest.mark.parametrize("names", ["blocks.{}.norm1.weight", "blocks.{}.x"])
def test_layers_of_a_network_have_an_end(names):
    few = {names.format(i): NUMBERS for i in range(1000)}
    assert layers_of(few, r"blocks\.(\d+)\.") == 1000
    with pytest.raises(ValueError, match="1001 layers"):
        layers_of(few | {names.format(1000): NUMBERS}, r"blocks\.(\d+)\.")


@pytest.mark.parametrize(
    ("name", "key", "told"),
    [
        ("ddpmpp", "model.dec.8x8_block{}.conv1.weight", "layers"),
        ("guided_diffusion", "input_blocks.{}.0.weight", "layers"),
        ("ddpmpp", "model.dec.1048576x1048576_block0.conv1.weight", "1048576"),
    ],
)
def test_other_families_are_not_built_as_large_as_a_name_says(tmp_path, name, key, told):
    path, case, params = made_up.write(tmp_path / "file.pt", name)
    arrays = made_up.tensors(case, params) | {key.format(10**9): np.zeros((8, 8, 3, 3), np.float32)}
    if "1048576" in key:
        arrays["model.enc.1048576x1048576_conv.weight"] = arrays["model.enc.8x8_conv.weight"]
        arrays["model.dec.1048576x1048576_aux_conv.weight"] = arrays["model.dec.8x8_aux_conv.weight"]
    written.write_state_dict(path, arrays)
    with pytest.raises(ValueError, match=told):
        convert(path, **case.given)


def test_an_empty_tensor_has_no_shape_of_a_network(tmp_path):
    _, case, params = made_up.write(tmp_path / "file.pt", "sit")
    tensors = made_up.tensors(case, params) | {"pos_embed": np.zeros((1, 2**40, 0), np.float32)}
    with pytest.raises(ValueError, match="pos_embed is no tensor, or an empty one"):
        dit.convert(tensors, **case.given)


@pytest.mark.parametrize("change", [{"num_blocks": 10**6}, {"img_resolution": 2**20}, {"channel_mult": [[1]]}])
def test_sizes_that_edm2_says(tmp_path, change):
    path, _ = made_up.edm2_snapshot(tmp_path / "file.pkl")
    content = read(path)
    content["ema"].state["_init_kwargs"].update(change)
    with pytest.raises(ValueError, match=r"num_blocks=1000000 are more|1048576|are no sizes"):
        edm2.convert(content)


def test_layers_that_diffusers_says():
    config = {"block_out_channels": [32], "layers_per_block": 10**9, "latent_channels": 4, "norm_num_groups": 4}
    with pytest.raises(ValueError, match="are too many"):
        autoencoder_from(config | {"in_channels": 3, "out_channels": 3})
