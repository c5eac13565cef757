"""Checkpoints by Orbax, with what Orbax does not check: payload checksums, dtypes, and the identity of the data.

A checkpoint holds a pytree and a small JSON of facts about it. It is restored onto any mesh, since the caller gives
shapes and shardings and the arrays are read into them.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from .agreement import is_first
from .refusal import Refused

FORMAT_VERSION = 1


LEFTOVER = ".orbax-checkpoint-tmp"


class Damaged(ValueError):
    """A checkpoint that cannot be read, or whose bits are not those that were saved."""


class SaveError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class Checkpoints(NamedTuple):
    """An open folder of checkpoints, one sub-folder per step."""

    path: Path
    manager: ocp.CheckpointManager


@contextmanager
def open_checkpoints(path: Path | str, *, keep: int | None = 2) -> Iterator[Checkpoints]:
    """Open or create the folder; only the newest `keep` steps stay, all if None. Leftovers of a killed save go.

    On leaving, also by an exception, saves in flight are waited for and what went wrong with them is raised: without
    that, a failed save can pass for success. What a failed save has left goes, as it may be what fills the disk.

    Raises:
        OSError: if the folder cannot be written, before any training.
        SaveError: on leaving, if the last save failed.
    """
    path = Path(path).absolute()
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".writable{jax.process_index()}"
    probe.touch()
    probe.unlink()
    manager = open_manager(path, max_to_keep=keep, cleanup_tmp_directories=True)
    checkpoints = Checkpoints(path, manager)
    try:
        yield checkpoints
    except BaseException as error:
        try:
            _finish(checkpoints)
        except SaveError as other:  # the first error is the one to tell
            if str(other) != str(error):
                error.add_note(str(other))
        raise
    else:
        _finish(checkpoints)
    finally:
        if is_first():
            for leftover in path.glob(f"*{LEFTOVER}*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _finish(checkpoints: Checkpoints) -> None:
    with _explaining(checkpoints):
        checkpoints.manager.wait_until_finished()
        checkpoints.manager.check_for_errors()
    checkpoints.manager.close()


@contextmanager
def _explaining(checkpoints: Checkpoints) -> Iterator[None]:
    """What Orbax raises when it cannot write, with what the user needs to know."""
    try:
        yield
    except Exception as error:  # tensorstore, Orbax and the file system each have their own
        path = checkpoints.path
        failed = sorted(leftover.name.split(".")[0] for leftover in path.glob(f"*{LEFTOVER}*"))
        free = shutil.disk_usage(path).free
        raise SaveError(
            f"the checkpoint {', '.join(failed)} could not be written to {path}, where {free:,} bytes are free; whole "
            f"are steps {steps_in(path) or 'none'}; {' '.join(str(error).split())[:400]}"
        ) from error


def save(checkpoints: Checkpoints, step: int, tree: PyTree, facts: dict[str, Any]) -> None:
    """Write a checkpoint in the background. An existing step is kept.

    Raises:
        SaveError: the one before it could not be written.
    """
    if step in checkpoints.manager.all_steps():
        return
    facts = facts | {"format_version": FORMAT_VERSION, "checksums": checksums(tree)}
    with _explaining(checkpoints):
        checkpoints.manager.save(
            step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree), facts=ocp.args.JsonSave(facts))
        )


def restore(
    checkpoints: Checkpoints, like: PyTree, *, step: int, unread: Collection[str] = ()
) -> tuple[PyTree, dict[str, Any]]:
    """Read the checkpoint of a step into the shapes, dtypes and shardings of `like`.

    Args:
        checkpoints: the open folder.
        like: a tree of shapes with their shardings.
        step: which one.
        unread: what `like` lacks on purpose, by the first part of its name.

    Returns:
        The tree, checked bit for bit against the sums taken when it was saved, and the facts saved with it.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        Damaged: if a part is missing or cannot be read, or the checksum of a leaf differs, naming it.
        Refused: if structure, shape or dtype of a leaf differ, naming it.
    """
    check_exists(checkpoints, step)
    facts = read_facts(checkpoints, step)
    with _reading(checkpoints, step):
        metadata = checkpoints.manager.item_metadata(step)["state"]
        if metadata is None:
            raise FileNotFoundError("state has no metadata")
        saved = {name: leaf for name, leaf in _leaves(metadata).items() if name.split("/")[0] not in unread}
    wanted = _leaves(like)
    problems = [f"{name}: only in the checkpoint" for name in saved.keys() - wanted.keys()]
    problems += [f"{name}: not in the checkpoint" for name in wanted.keys() - saved.keys()]
    problems += [
        f"{name}: checkpoint {_describe(saved[name])}, run {_describe(wanted[name])}"
        for name in saved.keys() & wanted.keys()
        if _describe(saved[name]) != _describe(wanted[name])
    ]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        way = ""
        if all(problem.startswith(("opt_state/", "averages/")) for problem in problems):
            way = "\n--reset=optimizer or --reset=averages starts that part anew"
        raise Refused(
            f"checkpoint {checkpoints.path / str(step)} does not fit this run:\n  "
            + "\n  ".join(sorted(problems)[:10])
            + more
            + way
        )
    with _reading(checkpoints, step):
        tree = checkpoints.manager.restore(step, args=ocp.args.Composite(state=request(like)))["state"]
    verify(checkpoints, step, tree, facts["checksums"])
    return tree, facts


def restore_as_numpy(checkpoints: Checkpoints, step: int) -> dict[str, np.ndarray]:
    """Every leaf of a checkpoint by its name, on the host, whatever devices it was saved from; not verified."""
    check_exists(checkpoints, step)
    metadata = checkpoints.manager.item_metadata(step)["state"]
    as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=as_numpy))
    return _leaves(checkpoints.manager.restore(step, args=args)["state"])


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
        if leaf.dtype == bool:
            return jnp.sum(leaf, dtype=jnp.uint32)
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        return jnp.sum(bits, dtype=jnp.uint32)

    return jax.tree.map(bit_sum, tree)


def verify(checkpoints: Checkpoints, step: int, tree: PyTree, expected: dict[str, int]) -> None:
    """Compare the bits of a tree, or of a part, with the sums taken when it was saved.

    Raises:
        Damaged: naming the leaves that differ.
    """
    actual = checksums(tree)
    damaged = sorted(name for name, value in actual.items() if expected[name] != value)
    if damaged:
        raise Damaged(
            f"checkpoint {checkpoints.path / str(step)} is damaged: the bits of {', '.join(damaged[:5])} are not "
            "those that were saved"
        )


@contextmanager
def _reading(checkpoints: Checkpoints, step: int) -> Iterator[None]:
    """What Orbax raises when it cannot read, with the checkpoint's name and what there is of it."""
    path = checkpoints.path / str(step)
    try:
        yield
    except Exception as error:  # tensorstore, Orbax and the file system each have their own
        if "RESOURCE_EXHAUSTED" in str(error):  # of memory, which says nothing about the files
            raise
        parts = sorted(part.name for part in path.iterdir()) if path.is_dir() else []
        raise Damaged(
            f"checkpoint {path} cannot be read; a whole one has facts and state, there are "
            f"{', '.join(parts) or 'none'}: " + " ".join(str(error).split())[:600]
        ) from error


def open_manager(path: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax's own manager of a folder that exists."""
    # Two folders may save the same step at once; without a name of its own each takes the other's barriers for its own.
    several = ocp.options.MultiprocessingOptions(primary_host=0, barrier_sync_key_prefix=path.name)
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(multiprocessing_options=several),
        "facts": ocp.JsonCheckpointHandler(multiprocessing_options=several),
    }
    chosen = ocp.CheckpointManagerOptions(multiprocessing_options=several, **options)
    return ocp.CheckpointManager(path, options=chosen, item_handlers=handlers)


def request(like: PyTree) -> ocp.args.PyTreeRestore:
    """Read the leaves of `like`, which may be a part of what was saved, into its shardings."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    return ocp.args.PyTreeRestore(item=like, restore_args=restore_args, partial_restore=True)


def check_exists(checkpoints: Checkpoints, step: int) -> None:
    """Refuse a step of which there is no checkpoint, with those that there are."""
    steps = sorted(checkpoints.manager.all_steps())
    if step not in steps:
        raise FileNotFoundError(f"no checkpoint of step {step} in {checkpoints.path}; steps there: {steps or 'none'}")


def read_facts(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What was saved beside the arrays.

    Raises:
        Damaged: if they are missing or cannot be read.
        Refused: if they are of another format.
    """
    with _reading(checkpoints, step):
        facts = checkpoints.manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
    if facts["format_version"] != FORMAT_VERSION:
        raise Refused(
            f"checkpoint {checkpoints.path / str(step)} has format {facts['format_version']}, "
            f"this version reads {FORMAT_VERSION}"
        )
    return facts


def _leaves(tree: PyTree) -> dict[str, Any]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def _describe(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
