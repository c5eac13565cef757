"""Checkpoints by Orbax, with what Orbax does not check: payload checksums, dtypes, and the identity of the data.

A checkpoint holds a pytree and a small JSON of facts about it. It is restored onto any mesh, since the caller gives
shapes and shardings and the arrays are read into them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree
from safetensors.numpy import load_file

FORMAT_VERSION = 1
CONVERTED = "model.safetensors"


class Checkpoints(NamedTuple):
    """An open folder of checkpoints, one sub-folder per step."""

    path: Path
    manager: ocp.CheckpointManager


@contextmanager
def open_checkpoints(path: Path | str, *, keep: int | None = 2) -> Iterator[Checkpoints]:
    """Open or create the folder; only the newest `keep` steps stay, all if None. Leftovers of a killed save go.

    On leaving, also by an exception, saves in flight are waited for and what went wrong with them is raised: without
    that, a failed save can pass for success.

    Raises:
        OSError: if the folder cannot be written, before any training.
    """
    path = Path(path).absolute()
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".writable"
    probe.touch()
    probe.unlink()
    manager = _manager(path, max_to_keep=keep, cleanup_tmp_directories=True)
    try:
        yield Checkpoints(path, manager)
    finally:
        manager.wait_until_finished()
        manager.check_for_errors()
        manager.close()


def save(checkpoints: Checkpoints, step: int, tree: PyTree, facts: dict[str, Any]) -> None:
    """Write a checkpoint in the background; an error of the previous save surfaces here. An existing step is kept."""
    if step in checkpoints.manager.all_steps():
        return
    facts = facts | {"format_version": FORMAT_VERSION, "checksums": checksums(tree)}
    checkpoints.manager.save(
        step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree), facts=ocp.args.JsonSave(facts))
    )


def restore(checkpoints: Checkpoints, like: PyTree, *, step: int) -> tuple[PyTree, dict[str, Any]]:
    """Read the checkpoint of a step into the shapes, dtypes and shardings of `like`.

    Returns:
        The tree, checked bit for bit against the sums taken when it was saved, and the facts saved with it.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if structure, shape, dtype or checksum of a leaf differ, naming it.
    """
    _check_exists(checkpoints, step)
    facts = _facts(checkpoints, step)
    saved = _leaves(checkpoints.manager.item_metadata(step)["state"])
    wanted = _leaves(like)
    problems = [f"{name}: only in the checkpoint" for name in saved.keys() - wanted.keys()]
    problems += [f"{name}: not in the checkpoint" for name in wanted.keys() - saved.keys()]
    problems += [
        f"{name}: checkpoint {_describe(saved[name])}, run {_describe(wanted[name])}"
        for name in saved.keys() & wanted.keys()
        if _describe(saved[name]) != _describe(wanted[name])
    ]
    if problems:
        raise ValueError(
            f"checkpoint {checkpoints.path / str(step)} does not fit this run:\n  " + "\n  ".join(sorted(problems)[:10])
        )
    tree = checkpoints.manager.restore(step, args=ocp.args.Composite(state=_request(like)))["state"]
    _verify(checkpoints, step, tree, facts["checksums"])
    return tree, facts


def restore_average(workdir: Path | str, average: str, step: int | None = None) -> tuple[PyTree, int]:
    """Parameters for sampling: one weight average by name, or "params", from a run's checkpoints.

    Nothing of the rest of the state is read. Arrays land on the default device. A folder with a converted network,
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
    with _manager(path) as manager:
        checkpoints = Checkpoints(path, manager)
        _check_exists(checkpoints, step)
        metadata = manager.item_metadata(step)["state"]
        choices = [name for name in ("params",) if name in metadata] + list(metadata["averages"])
        if average not in choices:
            raise ValueError(f"no average {average!r} in {path}; there are: {', '.join(choices)}")
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        one = metadata["params"] if average == "params" else metadata["averages"][average]
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), one)
        item = {"params": like} if average == "params" else {"averages": {average: like}}
        tree = manager.restore(step, args=ocp.args.Composite(state=_request(item)))["state"]
        _verify(checkpoints, step, tree, _facts(checkpoints, step)["checksums"])
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


def steps_in(path: Path | str) -> list[int]:
    """Steps with a finished checkpoint in a folder, ascending; empty if there is no such folder."""
    path = Path(path).absolute()
    return sorted(ocp.utils.checkpoint_steps(path)) if path.is_dir() else []


def checksums(tree: PyTree) -> dict[str, int]:
    """The sum of the bit patterns of each leaf, modulo 2^32: exact, and the same however the leaf is sharded."""
    return {name: int(value) for name, value in _leaves(_bit_sums(tree)).items()}


@jax.jit
def _bit_sums(tree: PyTree) -> PyTree:
    def bit_sum(leaf: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(bits, dtype=jnp.uint32)

    return jax.tree.map(bit_sum, tree)


def _verify(checkpoints: Checkpoints, step: int, tree: PyTree, expected: dict[str, int]) -> None:
    actual = checksums(tree)
    damaged = sorted(name for name, value in actual.items() if expected[name] != value)
    if damaged:
        older = [s for s in checkpoints.manager.all_steps() if s < step]
        advice = f"remove it to go back to step {max(older)}" if older else "there is no older one"
        raise ValueError(
            f"checkpoint {checkpoints.path / str(step)} is damaged: the bits of {', '.join(damaged[:5])} are not "
            f"those that were saved; {advice}"
        )


def _manager(path: Path, **options: Any) -> ocp.CheckpointManager:
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "facts": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(**options), item_handlers=handlers)


def _request(like: PyTree) -> ocp.args.PyTreeRestore:
    """Read the leaves of `like`, which may be a part of what was saved, into its shardings."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    return ocp.args.PyTreeRestore(item=like, restore_args=restore_args, partial_restore=True)


def _check_exists(checkpoints: Checkpoints, step: int) -> None:
    steps = sorted(checkpoints.manager.all_steps())
    if step not in steps:
        raise FileNotFoundError(f"no checkpoint of step {step} in {checkpoints.path}; steps there: {steps or 'none'}")


def _facts(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    facts = checkpoints.manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
    if facts["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {checkpoints.path / str(step)} has format {facts['format_version']}, "
            f"this version reads {FORMAT_VERSION}"
        )
    return facts


def _leaves(tree: PyTree) -> dict[str, Any]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def _describe(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
