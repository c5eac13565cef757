"""Bytes that eight devices send in a gradient with parameters shared out, as multiples of the parameters; a process.

python -m tests.models.spread_over.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp

from models import DiT, UViT
from train.program_cost import cost_of
from train.sharding import batch_sharding, make_mesh, state_shardings

NETWORKS: dict[str, Any] = {
    "dit": DiT(4, 128, 2, 4, num_classes=10),
    "uvit": UViT(16, (1,), 1, 128, 2, 4, embedding_width=128, num_classes=10),
}


def multiple(model: Any, batch: int = 64) -> float:
    """Of one network on images of 16 x 16 x 3."""
    mesh = make_mesh(fsdp=8)
    x, t = jax.ShapeDtypeStruct((batch, 16, 16, 3), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.float32)
    y = jax.ShapeDtypeStruct((batch,), jnp.int32)
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x, t, y)
    shardings = state_shardings(mesh, params)

    def placed(a, sharding):
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    def loss(params, x, t, y):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.mean(model.apply(params, x, t, y) ** 2)

    inputs = [placed(a, batch_sharding(mesh)) for a in (x, t, y)]
    gradient = jax.jit(jax.grad(loss), out_shardings=shardings)
    compiled = gradient.lower(jax.tree.map(placed, params, shardings), *inputs).compile()
    sent = sum(traffic.sent for traffic in cost_of(compiled.as_text() or "").collectives.values())
    return sent / (4 * sum(leaf.size for leaf in jax.tree.leaves(params)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: multiple(model) for name, model in NETWORKS.items()}))
