import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained.tensors import by_name, params_of, tensors_of

SHAPES = {
    "conv": {"kernel": np.zeros((1, 7, 2, 3)), "bias": np.zeros(3)},
    "qkv": {"kernel": np.zeros((2, 6)), "bias": np.zeros(6)},
    "table": np.zeros((5, 2)),
}
NAMES = {
    ("conv", "kernel"): ("conv.weight",),
    ("conv", "bias"): ("conv.bias",),
    ("qkv", "kernel"): ("q.weight", "k.weight", "v.weight"),
    ("qkv", "bias"): ("q.bias", "k.bias", "v.bias"),
    ("table",): ("table",),
}


@pytest.fixture
def tensors():
    """As PyTorch has them: outputs first."""
    generator = np.random.default_rng(0)
    shapes = {"conv.weight": (3, 2, 1, 7), "conv.bias": (3,), "table": (1, 5, 2)}
    shapes |= {f"{name}.weight": (2, 2) for name in "qkv"} | {f"{name}.bias": (2,) for name in "qkv"}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def converted(tensors, names=NAMES):
    of = by_name(names.__getitem__)
    return params_of(SHAPES, tensors, of, {}, "it", unused=lambda name: name == "counter", ones=True)


def test_axes_are_turned_and_pieces_joined(tensors):
    params = converted(tensors)
    x = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
    joined = x @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    pieces = [x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"] for name in "qkv"]
    np.testing.assert_allclose(joined, np.concatenate(pieces, axis=-1), rtol=1e-5, atol=1e-6)
    for out, inside, column in np.ndindex(3, 2, 7):
        assert params["conv"]["kernel"][0, column, inside, out] == tensors["conv.weight"][out, inside, 0, column]
    np.testing.assert_array_equal(params["table"], tensors["table"][0])


def test_the_way_back(tensors):
    back = tensors_of(converted(tensors), by_name(NAMES.__getitem__))
    assert back.keys() == tensors.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name].reshape(tensor.shape))


def test_half_precision_becomes_float32_and_what_is_unused_may_be_there(tensors):
    half = {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors.items()} | {"counter": np.zeros(1, int)}
    bias = converted(half)["conv"]["bias"]
    assert bias.dtype == jnp.float32
    np.testing.assert_array_equal(bias, half["conv.bias"].astype(np.float32))


def test_a_place_without_a_name_stays_empty(tensors):
    del tensors["conv.bias"]
    assert set(converted(tensors, NAMES | {("conv", "bias"): ()})["conv"]) == {"kernel"}


def test_a_linear_layer_may_be_a_convolution_of_one_pixel(tensors):
    expected = converted(tensors)["qkv"]["kernel"]
    tensors |= {f"{name}.weight": tensors[f"{name}.weight"][:, :, None, None] for name in "qkv"}
    np.testing.assert_array_equal(converted(tensors)["qkv"]["kernel"], expected)


def test_a_window_that_lies_the_other_way_is_refused(tensors):
    tensors["conv.weight"] = tensors["conv.weight"].swapaxes(2, 3)
    with pytest.raises(ValueError, match=r"conv\.weight has shape \(3, 2, 7, 1\), expected \(3, 2, 1, 7\)"):
        converted(tensors)


def test_every_fault_is_listed(tensors):
    tensors["stray"] = tensors.pop("k.bias")
    tensors["table"] = tensors["table"][:, :4]
    tensors["q.bias"] = np.zeros(2, int)
    with pytest.raises(ValueError, match="not the tensors of it") as error:
        converted(tensors)
    assert str(error.value).split("\n")[1:] == [
        "k.bias is missing",
        "stray is not a tensor of this network",
        "q.bias holds something else than finite numbers (int64)",
        "table has shape (1, 4, 2), expected (5, 2)",
    ]
