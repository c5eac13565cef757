"""Checkpoints by Orbax, with what Orbax does not check: payload checksums, dtypes, and the identity of the data.

A checkpoint holds a pytree and a small JSON of facts about it. It is read onto any mesh, since the reader gives
shapes and shardings and the arrays are read into them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .agreement import is_first
from .checksums import checksums, sum_of_facts

FORMAT_VERSION = 1
FACTS_SUM = "facts_checksum"

LEFTOVER = ".orbax-checkpoint-tmp"


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
    facts |= {FACTS_SUM: sum_of_facts(facts)}
    with _explaining(checkpoints):
        checkpoints.manager.save(
            step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree), facts=ocp.args.JsonSave(facts))
        )


def steps_in(path: Path | str) -> list[int]:
    """Steps with a finished checkpoint in a folder, ascending; empty if there is no such folder."""
    path = Path(path).absolute()
    return sorted(ocp.utils.checkpoint_steps(path)) if path.is_dir() else []


def open_manager(path: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax's own manager of a folder that exists."""
    chosen = ocp.CheckpointManagerOptions(multiprocessing_options=_several(path), **options)
    return ocp.CheckpointManager(path, options=chosen, item_handlers=handlers(path))


def handlers(path: Path) -> dict[str, Any]:
    """What writes and reads each of the two parts of a checkpoint in this folder."""
    return {
        "state": ocp.PyTreeCheckpointHandler(multiprocessing_options=_several(path)),
        "facts": ocp.JsonCheckpointHandler(multiprocessing_options=_several(path)),
    }


def _several(path: Path) -> ocp.options.MultiprocessingOptions:
    # Two folders may save the same step at once; without a name of its own each takes the other's barriers for its own.
    return ocp.options.MultiprocessingOptions(primary_host=0, barrier_sync_key_prefix=path.name)
