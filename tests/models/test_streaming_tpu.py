"""Streaming attention as the compiler for TPUs takes it; no TPU is needed."""

import subprocess
import sys

import pytest

from tests.tpu import environment, needs_libtpu

PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from models.streaming_attention import streaming_attention
from train.program_cost import cost_of

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices


def devices_of(mesh):
    return int(np.prod(list(mesh.shape.values())))


def gradient(axes, shape, spec):
    mesh = Mesh(np.array(devices[: np.prod(shape)]).reshape(shape), axes, axis_types=(AxisType.Auto,) * len(axes))
    x = jax.ShapeDtypeStruct((8, 1100, 4, 72), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    def loss(x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            u, du = jax.jvp(lambda x: streaming_attention(x, 2 * x, x), (x,), (x,))
        return jnp.sum((u - jax.lax.stop_gradient(du)).astype(jnp.float32) ** 2)

    text = jax.jit(jax.grad(loss)).lower(x).compile().as_text()
    # Of the dual, of q_bar, and of k_bar and v_bar, with 1100 filled up to three blocks of 512.
    expected = (12 + 6 + 8) * 8 * 1536**2 * 4 * 72 / devices_of(mesh)
    share = cost_of(text).product_flops / expected
    counted = abs(share - 1) < 1e-6 or share
    print(text.count("tpu_custom_call"), "all-gather" in text, "all-to-all" in text, counted)


gradient(("data",), (1,), ("data",))
gradient(("data", "fsdp", "tensor"), (2, 2, 2), (("data", "fsdp"), None, "tensor"))
"""


@pytest.mark.slow
@needs_libtpu
def test_a_gradient_is_three_kernels_on_each_chip_and_nothing_is_gathered():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["3 False False True"] * 2, done.stderr
