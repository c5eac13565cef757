"""A look before a run: one real step without writing anything."""

import time
from typing import NamedTuple

import jax
import numpy as np

from .experiment import Experiment, validate
from .sharding import batch_sharding, make_mesh, replicated
from .state import place_state
from .step import make_step


class Facts(NamedTuple):
    """What one step showed.

    Attributes:
        devices: e.g. "8 x TPU v5 lite".
        parameters: number of trained parameters.
        state_bytes: bytes of the state on one device: parameters, optimizer, averages.
        step_bytes: bytes one device needs for the step on top of its arguments, as the compiler reports it;
            0 where it does not.
        compile_seconds: tracing and compiling the step.
        step_seconds: the step itself, the second time it runs.
        scalars: the loss terms of the first step.
    """

    devices: str
    parameters: int
    state_bytes: int
    step_bytes: int
    compile_seconds: float
    step_seconds: float
    scalars: dict[str, float]


def check(experiment: Experiment) -> Facts:
    """Compile the step and take it twice on real data, from fresh parameters.

    Raises:
        ValueError: for a batch that the devices do not divide.
    """
    validate(experiment)
    mesh = make_mesh(fsdp=experiment.fsdp)
    state = place_state(experiment, mesh)
    frozen = jax.device_put(experiment.frozen, replicated(mesh))
    batches = experiment.batches(0)
    spread = batch_sharding(mesh)

    def put():
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(spread, x), next(batches))

    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    state_bytes = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=int) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    start = time.monotonic()
    compiled = make_step(experiment, mesh).lower(state, put(), frozen).compile()
    compile_seconds = time.monotonic() - start
    state, scalars = compiled(state, put(), frozen)
    memory = compiled.memory_analysis()
    batch = jax.block_until_ready(put())
    start = time.monotonic()
    state, _ = jax.block_until_ready(compiled(state, batch, frozen))
    return Facts(
        devices=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        parameters=parameters,
        state_bytes=int(state_bytes),
        step_bytes=memory.temp_size_in_bytes if memory else 0,
        compile_seconds=compile_seconds,
        step_seconds=time.monotonic() - start,
        scalars={name: float(value) for name, value in scalars.items()},
    )
