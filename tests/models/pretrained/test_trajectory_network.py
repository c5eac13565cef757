"""CTM's network for ImageNet-64 with random weights, as its program saves it, and what it computes in float64."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained import calls, convert, openai
from models.pretrained.tensors import places, shapes_of

FIXTURE = Path(__file__).parents[2] / "fixtures" / "ctm_imagenet64"


@pytest.fixture(scope="module")
def arrays():
    with np.load(FIXTURE / "example.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def converted():
    return convert(FIXTURE / "ema_0.999_034000.pt", resolution=8, channels_per_head=16)


@pytest.fixture(scope="module")
def F(arrays, converted):
    labels = jnp.asarray(arrays["labels"], jnp.int32)
    return jax.jit(lambda params, x, t, s: converted.module.apply({"params": params}, x, t, labels, s))


def images(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1), jnp.float32)


def error(value, truth):
    """Largest error of an image over the largest number in it."""
    truth = truth.transpose(0, 2, 3, 1)
    return np.max(np.abs(value - truth).max((1, 2, 3)) / np.abs(truth).max((1, 2, 3)))


def test_the_bare_network(arrays, converted, F):
    """At times of which sine and cosine lose nothing in float32."""
    x, t, s = images(arrays["x_near"]), arrays["near"] / 1000, arrays["near_s"] / 1000
    assert error(F(converted.params, x, t, s), arrays["F_near"]) < 1e-5
    assert error(F(converted.params, x, s, t), arrays["F_near"]) > 0.1


def test_g_and_its_jump(arrays, converted, F):
    """At noise levels; PyTorch's own float32 is off by 3.7e-5 there, for times as large as 1,554."""
    x, t, s = images(arrays["x"]), jnp.asarray(arrays["t"]), jnp.asarray(arrays["s"])
    g = calls.trajectory(converted.settings["call"], partial(F, converted.params))(x, t, s)
    ratio = (s / t)[:, None, None, None]
    assert error(g, arrays["g"]) < 1e-4
    assert error(ratio * x + (1 - ratio) * g, arrays["G"]) < 1e-4


def test_one_head_for_two_is_seen(arrays):
    wrong = convert(FIXTURE / "ema_0.999_034000.pt", resolution=8, channels_per_head=32)
    x, labels = images(arrays["x_near"]), jnp.asarray(arrays["labels"], jnp.int32)
    t, s = (jnp.asarray(arrays[name]) / 1000 for name in ("near", "near_s"))
    assert error(wrong.module.apply({"params": wrong.params}, x, t, labels, s), arrays["F_near"]) > 1e-3


def test_tensors_of_the_published_size():
    """Every name and every shape of the network of the official command, which has 324 million parameters."""
    published = {name: tuple(shape) for name, shape in json.loads((FIXTURE / "full_size.json").read_text()).items()}
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published.items()}
    settings: dict[str, Any] = {
        "shape": (64, 64, 3),
        "num_classes": 1000,
        "network": openai.network_of(zeros, 64, 64, "qkv head dim") | {"time_scale": 1000.0, "second_branch": True},
    }
    assert settings["network"]["attention_resolutions"] == (32, 16, 8)
    module, stored_at = openai.build(settings), openai.stored_at(settings)
    ours = places(shapes_of(module, (1, 64, 64, 3), (1,), labels=True, second_time=True))
    tensors = {}
    for place, shape in ours.items():
        stored = stored_at(place, shape)
        (name,) = stored.names()
        tensors[name] = stored.layout.stored(np.broadcast_to(np.float32(0), shape)).shape
    assert tensors == published
    assert sum(np.prod(shape) for shape in published.values()) == 324_100_611
