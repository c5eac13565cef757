"""Rows come back in their order however they are parted, and none travels between devices."""

import json

import jax
import numpy as np
import pytest

from configs.in_parts import in_parts
from tests.children import on_devices


@pytest.mark.parametrize(
    ("n", "devices", "each", "at_once"),
    [(3, 1, 2, 2), (4, 1, 4, 4), (12, 2, 2, 4), (10, 2, 2, 4), (8, 8, 2, 8), (48, 8, 4, 32), (9, 8, 4, 4)],
)
def test_the_parts_together_are_the_whole(n, devices, each, at_once):
    x = jax.random.normal(jax.random.key(n), (n, 3, 2))
    calls = []

    def f(x):
        calls.append(len(x))
        return {"sum": x.sum((1, 2)), "square": x**2}

    found = in_parts(f, x, each=each, devices=devices)
    assert set(calls) == {at_once}
    np.testing.assert_array_equal(found["sum"], x.sum((1, 2)))
    np.testing.assert_array_equal(found["square"], x**2)


ON_DEVICES = """
import json
from functools import partial
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from configs.in_parts import in_parts

mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
x = jax.device_put(jax.random.normal(jax.random.key(0), (48, 16, 16, 4)), rows)
kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 8))


def f(x):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


program = jax.jit(partial(in_parts, f, each=2, devices=8), out_shardings=rows).lower(x).compile()
words = ("all-gather", "all-to-all", "all-reduce", "collective-permute")
sent = [word for word in words if word in program.as_text()]
print(json.dumps({"sent": sent, "apart": float(jnp.abs(program(x) - f(x)).max())}))
"""


@pytest.mark.slow
def test_eight_devices_do_their_own_rows():
    found = json.loads(on_devices(8, "-c", ON_DEVICES))
    assert found["sent"] == []
    assert found["apart"] < 1e-5
