"""What a training step will need and take on devices that may not be here: it is compiled for them and not run."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .chips import GIB, Chip, chip_of
from .experiment import Experiment, validate
from .program_cost import Cost, cost_of
from .sharding import batch_sharding, check_batch_size, make_mesh, state_shardings
from .state import state_like
from .step import make_step

NEEDED = re.compile(
    r"(?:[Uu]sed|temporaries \()\s*([\d.]+)([KMG])\)? (?:of|exceeds available HBM \()\s*([\d.]+)([KMG])"
)
UNITS = {"K": 2**10, "M": 2**20, "G": GIB}


class Plan(NamedTuple):
    """A step as it was compiled; bytes, operations and seconds are those of one device.

    Attributes:
        devices: how many.
        kind: what JAX calls one, e.g. "TPU v5 lite".
        chip: its entry in the table, None if it has none.
        mesh: sizes of the axes of the mesh.
        batch: examples a device.
        memory: bytes by what they are for: parameters, optimizer, averages, frozen, batch; and, where the compiler
            says, padding of these, temporaries, results that are not written over the state, code.
        host: bytes by what they are for, in the memory of the host.
        needed: bytes in the device's memory, as the compiler counts.
        available: bytes that a program may use there; None if that is not known.
        donated: whether the new state is written over the old one, whole.
        cost: operations, bytes moved, messages; None for what does not fit.
        compile_seconds: tracing and compiling.
    """

    devices: int
    kind: str
    chip: Chip | None
    mesh: Mapping[str, int]
    batch: int
    memory: Mapping[str, int]
    host: Mapping[str, int]
    needed: int
    available: int | None
    donated: bool
    cost: Cost | None
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether the compiler accepts it; one that refuses nothing, as all but a TPU's, is held to the memory."""
        if self.cost is None or self.available is None or self.kind.startswith("TPU"):
            return self.cost is not None
        return self.needed <= self.available


def plan(experiment: Experiment, devices: Sequence[Any] | None = None) -> Plan:
    """Compile the step of an experiment for these devices, the local ones by default; nothing is allocated or run.

    Data and frozen parameters are read only where the experiment does not know their shapes.

    Raises:
        FileNotFoundError: if they have to be read and are not there.
        ValueError: for a batch that the devices do not divide, or axes of the mesh that do not divide the devices.
    """
    validate(experiment)
    devices = jax.devices() if devices is None else devices
    mesh = make_mesh(fsdp=experiment.fsdp, tensor=experiment.tensor, devices=devices)
    spread = len(devices) // experiment.tensor
    check_batch_size(experiment.batch_size, accumulate=experiment.accumulate, devices=spread)
    state = state_like(experiment, mesh)
    frozen = shaped(frozen_shapes(experiment), lambda tree: state_shardings(mesh, tree))
    batch = shaped(batch_shapes(experiment), lambda tree: jax.tree.map(lambda _: batch_sharding(mesh), tree))
    parts = {"parameters": state.params, "optimizer": state.opt_state, "averages": state.averages,
             "frozen": frozen, "batch": batch}  # fmt: skip
    memory = {name: bytes_of(tree, "device") for name, tree in parts.items()}
    host = {name: size for name, tree in parts.items() if (size := bytes_of(tree, "pinned_host"))}
    chip = chip_of(devices[0].device_kind)
    facts: dict[str, Any] = {
        "devices": len(devices), "kind": devices[0].device_kind, "chip": chip, "mesh": dict(mesh.shape),
        "batch": experiment.batch_size // spread, "host": host,
    }  # fmt: skip

    start = time.monotonic()
    try:
        compiled = make_step(experiment, mesh).lower(state, batch, frozen).compile()
    except jax.errors.JaxRuntimeError as error:
        if not (found := NEEDED.search(str(error))):
            raise
        needed, available = (int(float(n) * UNITS[unit]) for n, unit in (found.groups()[:2], found.groups()[2:]))
        memory["temporaries"] = max(needed - sum(memory.values()), 0)
        return Plan(
            **facts, memory=memory, needed=needed, available=available, donated=False, cost=None,
            compile_seconds=time.monotonic() - start,
        )  # fmt: skip
    compile_seconds = time.monotonic() - start
    stats: Any = compiled.memory_analysis()
    memory |= {
        "padding": stats.argument_size_in_bytes - sum(memory.values()),
        "temporaries": stats.temp_size_in_bytes,
        "results": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    return Plan(
        **facts, memory=memory, needed=sum(memory.values()), available=chip and int(chip.memory),
        donated=stats.alias_size_in_bytes >= bytes_of(state, "device"),
        cost=cost_of(compiled.as_text() or ""), compile_seconds=compile_seconds,
    )  # fmt: skip


def roofline(plan: Plan) -> dict[str, float]:
    """Least seconds of a step by what it waits for, were it alone: compute, memory, links; empty for unknown chips.

    The longest of the three is a bound that no step goes below; real ones take longer.
    """
    if plan.cost is None or plan.chip is None:
        return {}
    sent = sum(traffic.sent for traffic in plan.cost.collectives.values())
    return {
        "compute": plan.cost.flops / plan.chip.flops,
        "memory": plan.cost.memory_bytes / plan.chip.bandwidth,
        "links": sent / plan.chip.links,
    }


def largest_batch(
    plan_of: Callable[[int], Plan], first: Plan, *, compiles: int, report: Callable[[Plan], None]
) -> tuple[int, int | None]:
    """The largest examples a device known to fit, and the smallest known not to, by so many compilations more.

    Args:
        plan_of: examples a device -> its plan.
        first: a plan to start from.
        compiles: the most compilations to spend.
        report: called after each.
    """
    plans = {first.batch: first}
    for _ in range(compiles):
        fit = max((b for b, p in plans.items() if p.fits), default=0)
        too_many = min((b for b, p in plans.items() if not p.fits), default=None)
        if too_many is not None and too_many - fit <= max(1, fit // 16):
            break
        batch = next_batch(plans, fit, too_many)
        plans[batch] = plan_of(batch)
        report(plans[batch])
    fit = max((b for b, p in plans.items() if p.fits), default=0)
    return fit, min((b for b, p in plans.items() if not p.fits), default=None)


def next_batch(plans: Mapping[int, Plan], fit: int, too_many: int | None) -> int:
    """Where the memory of the two plans nearest to the limit, taken as a straight line, meets it; doubled or halved."""
    if too_many is None and len(plans) == 1:
        return 2 * fit
    low, high = fit, too_many if too_many is not None else 4 * fit
    known = sorted(plans, key=lambda b: abs(plans[b].needed - (plans[b].available or 0)))[:2]
    if len(known) == 2 and (available := plans[known[0]].available):
        slope = (plans[known[0]].needed - plans[known[1]].needed) / (known[0] - known[1])
        if slope > 0:
            guess = int(known[0] + (available - plans[known[0]].needed) / slope)
            return min(max(guess, low + 1), high - 1)
    return max((low + high) // 2, 1)


# ---- Shapes ----------------------------------------------------------------------------------------------------------


def batch_shapes(experiment: Experiment) -> Any:
    """Shapes and types of a global batch; one is read where the experiment does not know."""
    if experiment.batch_like is not None:
        return dict(experiment.batch_like)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(next(experiment.batches(0))))


def frozen_shapes(experiment: Experiment) -> Any:
    """Shapes and types of what is never trained; it is read where the experiment does not know."""
    frozen = experiment.frozen if experiment.frozen_like is None else experiment.frozen_like
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), frozen())


def shaped(tree: Any, shardings_of: Callable[[Any], Any]) -> Any:
    """The same shapes, with where they lie."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings_of(tree))


def bytes_of(tree: Any, kind: str) -> int:
    """Bytes of a tree in one device's part of a memory, without padding."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if (leaf.sharding.memory_kind or "device") == kind
    )
