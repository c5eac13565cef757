"""Two steps of a small transformer on one device, and on eight that share it in every way at once, as a program.

    JAX_NUM_CPU_DEVICES=8 python -m tests.sharded_steps

Prints one JSON object: the largest difference in the state over the largest number of its array, or 1, and where some
arrays lay.
"""

import json
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from losses import rectified_flow
from models import DiT
from tests.tiny import experiment
from train import Experiment, averages, make_mesh, make_step, place_state
from train.sharding import batch_sharding

SHAPE = (4, 4, 3)


def run(**changes: Any) -> Experiment:
    """Flow matching with a DiT whose every layer is large enough to be split."""
    model = DiT(patch=2, width=64, depth=4, heads=4)

    def init(key: jax.Array) -> Any:
        start = model.init(key, jnp.zeros((1, *SHAPE)), jnp.zeros(1))["params"]
        # With the zeros of its start, gradients of most layers would be zero.
        return jax.tree.map(lambda x: x + 0.05 * jnp.sin(1.7 * jnp.arange(x.size)).reshape(x.shape), start)

    def objective(params, batch, key, context):
        def net(x: jax.Array, t: jax.Array) -> Any:
            return model.apply({"params": params}, x, t)

        return rectified_flow(net, batch["image"], key)

    def batches(start):
        while True:
            yield {"image": np.random.default_rng(start).normal(0, 1, (32, *SHAPE)).astype(np.float32)}
            start += 1

    return experiment(
        init=init,
        objective=objective,
        optimizer=optax.sgd(1e-3, momentum=0.9),  # Adam divides rounding errors by gradients near zero
        averages={"ema": partial(averages.constant, decay=0.9)},
        batches=batches,
        judged_average="ema",
        batch_size=32,
        accumulate=2,
        **changes,
    )


def steps(this: Experiment, devices: list[Any]) -> Any:
    mesh = make_mesh(fsdp=this.fsdp, tensor=this.tensor, devices=devices)
    state, step, batches = place_state(this, mesh), make_step(this, mesh), this.batches(0)
    for _ in range(2):
        state, _ = step(state, jax.device_put(next(batches), batch_sharding(mesh)), None)
    return state


def main() -> None:
    expected = jax.device_get(steps(run(), jax.devices()[:1]))
    state = steps(run(fsdp=2, tensor=2, averages_on_host=True), jax.devices())
    pairs = list(zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(expected), strict=True))
    start = jax.device_get(jax.tree.leaves(jax.jit(lambda: run().init(jax.random.key(0)))()))
    moved = zip(jax.tree.leaves(expected.params), start, strict=True)
    layers = {"params": state.params, "momentum": state.opt_state[0].trace, "average": state.averages["ema"]}
    facts = {
        # A gradient is a sum whose terms may cancel: it is rounded as they are, and not as what is left of them.
        "difference": max(float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1)) for a, b in pairs),
        "moved": max(float(np.max(np.abs(a - b))) for a, b in moved),
        **{
            f"{name} {layer}": [str(array.sharding.spec), array.sharding.memory_kind]
            for name, tree in layers.items()
            for layer, array in (("mlp0", tree["blocks"]["mlp0"]["kernel"]), ("mlp1", tree["blocks"]["mlp1"]["kernel"]))
        },
    }
    json.dump(facts, sys.stdout)


if __name__ == "__main__":
    main()
