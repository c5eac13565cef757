"""A look before a run: one real step without writing anything."""

import time
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .averages import update
from .experiment import Batch, Context, Experiment, validate
from .feeding import global_batches
from .sharding import make_mesh, state_shardings
from .state import place_state
from .step import make_step


class Facts(NamedTuple):
    """What one step showed.

    Attributes:
        devices: e.g. "8 x TPU v5 lite".
        state_bytes: bytes of the state on one device: parameters, optimizer, averages.
        step_bytes: bytes one device needs for the step on top of its arguments, as the compiler reports it;
            0 where it does not.
        compile_seconds: tracing and compiling the step.
        step_seconds: the step itself, the second time it runs.
        scalars: the loss terms of the first step.
    """

    devices: str
    state_bytes: int
    step_bytes: int
    compile_seconds: float
    step_seconds: float
    scalars: dict[str, float]


def count_parameters(experiment: Experiment) -> int:
    """Number of trained parameters; the networks are traced for their shapes and nothing is allocated."""
    shapes = jax.eval_shape(lambda: experiment.init(jax.random.key(experiment.seed)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def trace_loss(experiment: Experiment, batch: Batch, frozen: Any) -> None:
    """Trace the loss of a batch and the averages for their shapes alone: what cannot be computed is told in seconds.

    Raises:
        ValueError: or what else the network, the loss or an average refuses its values with.
    """

    def loss(batch: Batch, frozen: Any) -> Any:
        key = jax.random.key(experiment.seed)
        params, step = experiment.init(key), jnp.zeros((), jnp.int32)
        averaged = dict.fromkeys(experiment.averages, params)
        batch = jax.tree.map(lambda x: x[: len(x) // experiment.accumulate], experiment.prepare(key, batch))
        losses = experiment.objective(params, batch, key, Context(step, frozen, averaged))
        return losses, update(averaged, experiment.averages, params, step)

    jax.eval_shape(loss, batch, frozen)


def check(experiment: Experiment) -> Facts:
    """Compile the step and take it twice on real data, from the parameters a run starts from.

    Data and frozen parameters are read before anything is allocated for the run itself.

    Raises:
        FileNotFoundError: if data or a teacher are not there.
        ValueError: for a batch that the devices do not divide.
    """
    validate(experiment)
    mesh = make_mesh(fsdp=experiment.fsdp, tensor=experiment.tensor)
    batches = chain([next(reader := global_batches(experiment, mesh, 0))], reader)
    frozen = experiment.frozen()
    frozen = jax.device_put(frozen, state_shardings(mesh, frozen))
    state = place_state(experiment, mesh)

    state_bytes = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=int) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    start = time.monotonic()
    compiled = make_step(experiment, mesh).lower(state, next(batches), frozen).compile()
    compile_seconds = time.monotonic() - start
    state, scalars = compiled(state, next(batches), frozen)
    memory = compiled.memory_analysis()
    batch = jax.block_until_ready(next(batches))
    start = time.monotonic()
    state, _ = jax.block_until_ready(compiled(state, batch, frozen))
    return Facts(
        devices=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        state_bytes=int(state_bytes),
        step_bytes=memory.temp_size_in_bytes if memory else 0,
        compile_seconds=compile_seconds,
        step_seconds=time.monotonic() - start,
        scalars={name: float(value) for name, value in scalars.items()},
    )
