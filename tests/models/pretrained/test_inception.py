"""Weights of Inception-v3 in two layouts. A tensor here is one number in the shape of many, told by its name."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.inception import SIDE, InceptionV3
from models.pretrained.inception import FAMILY, convert, inception, recognises
from models.pretrained.tensors import tensors_of

# Every unit as pytorch-fid and as TensorFlow's graph name it, block by block.
STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
BLOCK_A = {
    "branch1x1": "conv",
    "branch5x5_1": "tower.conv",
    "branch5x5_2": "tower.conv_1",
    "branch3x3dbl_1": "tower_1.conv",
    "branch3x3dbl_2": "tower_1.conv_1",
    "branch3x3dbl_3": "tower_1.conv_2",
    "branch_pool": "tower_2.conv",
}
BLOCK_B = {
    "branch3x3": "conv",
    "branch3x3dbl_1": "tower.conv",
    "branch3x3dbl_2": "tower.conv_1",
    "branch3x3dbl_3": "tower.conv_2",
}
BLOCK_C = {
    "branch1x1": "conv",
    "branch7x7_1": "tower.conv",
    "branch7x7_2": "tower.conv_1",
    "branch7x7_3": "tower.conv_2",
    "branch7x7dbl_1": "tower_1.conv",
    "branch7x7dbl_2": "tower_1.conv_1",
    "branch7x7dbl_3": "tower_1.conv_2",
    "branch7x7dbl_4": "tower_1.conv_3",
    "branch7x7dbl_5": "tower_1.conv_4",
    "branch_pool": "tower_2.conv",
}
BLOCK_D = {
    "branch3x3_1": "tower.conv",
    "branch3x3_2": "tower.conv_1",
    "branch7x7x3_1": "tower_1.conv",
    "branch7x7x3_2": "tower_1.conv_1",
    "branch7x7x3_3": "tower_1.conv_2",
    "branch7x7x3_4": "tower_1.conv_3",
}
BLOCK_E = {
    "branch1x1": "conv",
    "branch3x3_1": "tower_conv",
    "branch3x3_2a": "tower_mixed_conv",
    "branch3x3_2b": "tower_mixed_conv_1",
    "branch3x3dbl_1": "tower_1_conv",
    "branch3x3dbl_2": "tower_1_conv_1",
    "branch3x3dbl_3a": "tower_1_mixed_conv",
    "branch3x3dbl_3b": "tower_1_mixed_conv_1",
    "branch_pool": "tower_2_conv",
}
BLOCKS = {
    **{f"Mixed_5{x}": (f"mixed{end}", BLOCK_A) for x, end in zip("bcd", ("", "_1", "_2"), strict=True)},
    "Mixed_6a": ("mixed_3", BLOCK_B),
    **{f"Mixed_6{x}": (f"mixed_{i}", BLOCK_C) for x, i in zip("bcde", (4, 5, 6, 7), strict=True)},
    "Mixed_7a": ("mixed_8", BLOCK_D),
    **{f"Mixed_7{x}": (f"mixed_{i}", BLOCK_E) for x, i in zip("bc", (9, 10), strict=True)},
}
UNITS = STEM | {
    f"{one}.{unit}": f"{other}.{name}" for one, (other, units) in BLOCKS.items() for unit, name in units.items()
}
KINDS = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}


def constant(name, shape):
    """A tensor of a number that its name tells."""
    return np.broadcast_to(np.float32(zlib.crc32(name.encode()) / 2**32), shape)


@pytest.fixture(scope="module")
def state_dict():
    """A file of pytorch-fid, but for its numbers: all scales are 1, as in the graph that it was made from."""
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    found = {}
    for unit in UNITS:
        layer = variables["params"]
        for name in unit.split("."):
            layer = layer[name]
        height, width, channels, new_channels = layer["conv"]["kernel"].shape
        found[f"{unit}.conv.weight"] = constant(f"{unit}.conv.weight", (new_channels, channels, height, width))
        found[f"{unit}.bn.weight"] = np.broadcast_to(np.float32(1), (new_channels,))
        for kind in ("bias", "running_mean", "running_var"):
            found[f"{unit}.bn.{kind}"] = constant(f"{unit}.bn.{kind}", (new_channels,))
        found[f"{unit}.bn.num_batches_tracked"] = np.zeros((), np.int64)
    found["fc.weight"] = constant("fc.weight", (1008, 2048))
    found["fc.bias"] = constant("fc.bias", (1008,))
    return found


def as_graph(state_dict):
    """The same as OpenAI and NVIDIA have it."""
    found = {"output.weight": state_dict["fc.weight"], "output.bias": state_dict["fc.bias"]}
    for unit, name in UNITS.items():
        found |= {f"layers.{name}.{graph}": state_dict[f"{unit}.{kind}"] for kind, graph in KINDS.items()}
    return found


def test_two_layouts_are_one_network(state_dict):
    assert (len(state_dict), len(as_graph(state_dict))) == (566, 378)
    variables = inception(state_dict)
    jax.tree.map(np.testing.assert_array_equal, inception(as_graph(state_dict)), variables)
    initial = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, initial)
    for unit in ("Mixed_6c.branch7x7dbl_3", "Mixed_7b.branch3x3dbl_3a"):
        block, branch = unit.split(".")
        kernel = variables["params"][block][branch]["conv"]["kernel"]
        assert kernel[0, 0, 0, 0] == constant(f"{unit}.conv.weight", ())
        assert variables["batch_stats"][block][branch]["bn"]["var"][0] == constant(f"{unit}.bn.running_var", ())


def test_both_layouts_go_back(state_dict):
    kept = {name: a for name, a in state_dict.items() if not name.endswith("num_batches_tracked")}
    for tensors, expected in ((state_dict, kept), (as_graph(state_dict), as_graph(state_dict))):
        assert recognises(tensors)
        converted = convert(tensors)
        back = tensors_of(converted.params, FAMILY.stored_at(converted.settings))
        assert back.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_every_fault_of_a_file_is_listed(state_dict):
    wrong = dict(state_dict)
    wrong["Mixed_6b.branch7x7_2.conv.weight"] = wrong["Mixed_6b.branch7x7_2.conv.weight"].swapaxes(2, 3)
    del wrong["Mixed_7c.branch1x1.bn.running_var"]
    wrong["AuxLogits.fc.bias"] = np.zeros(1000, np.float32)  # an auxiliary head is no fault
    wrong["head.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="not the tensors of FID's Inception-v3 as pytorch-fid") as raised:
        inception(wrong)
    assert str(raised.value).split("\n")[1:] == [
        "Mixed_7c.branch1x1.bn.running_var is missing",
        "head.weight is not a tensor of this network",
        "Mixed_6b.branch7x7_2.conv.weight has shape (128, 128, 7, 1), expected (128, 128, 1, 7)",
    ]


def test_torchvisions_inception_is_refused(state_dict):
    theirs = state_dict | {"fc.weight": np.zeros((1000, 2048), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    with pytest.raises(ValueError, match=r"fc\.weight has shape \(1000, 2048\), expected \(1008, 2048\)"):
        inception(theirs)
