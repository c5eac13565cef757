"""The weights of a run, for sampling: one average, or the parameters, without the rest of the state."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from safetensors.numpy import load_file

from .checkpoint import Checkpoints, open_manager, steps_in
from .reading import metadata_of, read_and_verify, reading
from .refusal import Refused

CONVERTED = "model.safetensors"


def restore_average(workdir: Path | str, average: str, step: int | None = None) -> tuple[PyTree, int]:
    """Parameters for sampling: one weight average by name, or "params", from a run's checkpoints.

    Nothing of the rest of the state is read. Arrays land on the default device, or on all devices of several
    processes, which must ask for the same. A folder with a converted network,
    `model.safetensors`, is a run of no steps, and of "params" alone.

    Returns:
        The parameters and the step they are from.

    Raises:
        FileNotFoundError: if the run has no checkpoint (of that step).
        ValueError: if there is no such average (those that exist are listed), or its checksum differs.
    """
    if (converted := Path(workdir) / CONVERTED).is_file():
        if average != "params" or step not in (None, 0):
            raise ValueError(f"{converted} has the average params of step 0 alone, got {average!r} of step {step}")
        return read_converted(converted), 0
    path = Path(workdir) / "checkpoints"
    steps = steps_in(path)
    if not steps:
        raise FileNotFoundError(f"no checkpoint in {workdir}: nothing was trained there yet")
    step = steps[-1] if step is None else step
    return read_average(path, average, step), step


def read_average(path: Path | str, average: str, step: int) -> PyTree:
    """One weight average, or "params", from the checkpoint of a step in a folder of checkpoints."""
    path = Path(path).absolute()
    with open_manager(path) as manager:
        checkpoints = Checkpoints(path, manager)

        def choose() -> PyTree:
            with reading(checkpoints, step):
                metadata = metadata_of(checkpoints, step)
                choices = [name for name in ("params",) if name in metadata] + list(metadata["averages"])
            if average not in choices:
                raise Refused(f"no average {average!r} in {path}; there are: {', '.join(choices)}")
            device = everywhere()
            one = metadata["params"] if average == "params" else metadata["averages"][average]
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), one)
            return {"params": like} if average == "params" else {"averages": {average: like}}

        tree, _ = read_and_verify(checkpoints, step, choose)
    return tree["params"] if average == "params" else tree["averages"][average]


def read_converted(path: Path) -> PyTree:
    """The parameters in a safetensors file whose names are those in the tree, joined by "/"."""
    params: dict[str, Any] = {}
    for name, array in load_file(path).items():
        *parents, last = name.split("/")
        layer = params
        for parent in parents:
            layer = layer.setdefault(parent, {})
        layer[last] = jnp.asarray(array)
    return params


def everywhere() -> jax.sharding.Sharding:
    """The default device, or a copy on each device of all processes."""
    if jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
