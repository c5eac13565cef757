"""Reading checkpoints: each process its own part without the others, and then all go on, or none does."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .agreement import alike
from .checkpoint import FACTS_SUM, FORMAT_VERSION, Checkpoints, handlers
from .checksums import checksums, leaves_by_name, sum_of_facts
from .refusal import Refused


class Damaged(ValueError):
    """A checkpoint that cannot be read, or whose bits are not those that were saved."""


def restore(
    checkpoints: Checkpoints,
    like: PyTree,
    *,
    step: int,
    unread: Collection[str] = (),
    check: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> tuple[PyTree, dict[str, Any]]:
    """Read the checkpoint of a step into the shapes, dtypes and shardings of `like`; all processes together.

    Args:
        checkpoints: the open folder.
        like: a tree of shapes with their shardings.
        step: which one.
        unread: what `like` lacks on purpose, by the first part of its name.
        check: of the facts, before anything large is read; it may raise Refused or Damaged.

    Returns:
        The tree, checked bit for bit against the sums taken when it was saved, and the facts saved with it.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        Damaged: if a part is missing or cannot be read, or the checksum of a leaf differs, naming it.
        Refused: if structure, shape or dtype of a leaf differ, naming it.
    """

    def choose() -> PyTree:
        with reading(checkpoints, step):
            metadata = metadata_of(checkpoints, step)
            saved = {name: leaf for name, leaf in leaves_by_name(metadata).items() if name.split("/")[0] not in unread}
        _check_fits(checkpoints, step, saved, leaves_by_name(like))
        return like

    return read_and_verify(checkpoints, step, choose, check)


def read_and_verify(
    checkpoints: Checkpoints,
    step: int,
    choose: Callable[[], PyTree],
    check: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> tuple[PyTree, dict[str, Any]]:
    """Read a part of a checkpoint, verified, and its facts; all processes together, and they end alike.

    Args:
        checkpoints: the open folder.
        step: which one.
        choose: gives the shapes to read, with their shardings.
        check: of the facts.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        Damaged: it cannot be read, or its bits are not those that were saved.
        Refused: by `choose` or `check`.
    """

    def read() -> tuple[PyTree, dict[str, Any]]:
        check_exists(checkpoints, step)
        facts = read_facts(checkpoints, step)
        check(facts)
        like = choose()
        args = ocp.checkpoint_utils.construct_restore_args(like)
        args = ocp.args.PyTreeRestore(item=like, restore_args=args, partial_restore=True)
        with reading(checkpoints, step):
            # Not by the manager, whose restore ends in a barrier: who fails would leave the others in it for ever.
            return handlers(checkpoints.path)["state"].restore(checkpoints.path / str(step) / "state", args=args), facts

    # Each process reads its own part, so that a damage may show to one of them alone.
    kinds = (Damaged, Refused, FileNotFoundError)
    tree, facts = alike(read, kinds)
    alike(lambda: verify(checkpoints, step, tree, facts["checksums"]), kinds)
    return tree, facts


def restore_as_numpy(checkpoints: Checkpoints, step: int) -> dict[str, np.ndarray]:
    """Every leaf of a checkpoint by its name, on the host, whatever devices it was saved from; not verified."""
    check_exists(checkpoints, step)
    as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), metadata_of(checkpoints, step))
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=as_numpy))
    return leaves_by_name(checkpoints.manager.restore(step, args=args)["state"])


def read_facts(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """What was saved beside the arrays, read by this process without the others.

    Raises:
        Damaged: if they are missing, cannot be read, or are not those that were saved.
        Refused: if they are of another format.
    """
    path = checkpoints.path / str(step)
    with reading(checkpoints, step):
        facts = dict(handlers(checkpoints.path)["facts"].restore(path / "facts"))
    saved = facts.pop(FACTS_SUM, None)  # checkpoints of earlier versions have none
    if saved is not None and saved != sum_of_facts(facts):
        raise Damaged(f"checkpoint {path} is damaged: its facts are not those that were saved")
    for name, kind in (("format_version", int), ("checksums", dict)):
        if not isinstance(facts.get(name), kind):
            raise Damaged(
                f"checkpoint {path} is damaged: its facts have no {name}, only {', '.join(facts) or 'nothing'}"
            )
    if facts["format_version"] != FORMAT_VERSION:
        raise Refused(f"checkpoint {path} has format {facts['format_version']}, this version reads {FORMAT_VERSION}")
    return facts


def verify(checkpoints: Checkpoints, step: int, tree: PyTree, expected: dict[str, int]) -> None:
    """Compare the bits of a tree, or of a part, with the sums taken when it was saved.

    Raises:
        Damaged: naming the leaves that differ.
    """
    damaged = sorted(name for name, value in checksums(tree).items() if expected.get(name) != value)
    if damaged:
        raise Damaged(
            f"checkpoint {checkpoints.path / str(step)} is damaged: the bits of {', '.join(damaged[:5])} are not "
            "those that were saved"
        )


@contextmanager
def reading(checkpoints: Checkpoints, step: int) -> Iterator[None]:
    """What Orbax raises when it cannot read, with the checkpoint's name and what there is of it.

    Raises:
        Damaged: in its place.
    """
    path = checkpoints.path / str(step)
    try:
        yield
    except Exception as error:  # tensorstore, Orbax and the file system each have their own
        first: BaseException = error
        while first.__cause__ is not None:  # Orbax puts pages of settings before the error that names the leaf
            first = first.__cause__
        if "RESOURCE_EXHAUSTED" in str(first):  # of memory, which says nothing about the files
            raise
        parts = sorted(part.name for part in path.iterdir()) if path.is_dir() else []
        raise Damaged(
            f"checkpoint {path} cannot be read; a whole one has facts and state, there are "
            f"{', '.join(parts) or 'none'}: " + " ".join(str(first).split())[:600]
        ) from error


def check_exists(checkpoints: Checkpoints, step: int) -> None:
    """Refuse a step of which there is no checkpoint, with those that there are."""
    steps = sorted(checkpoints.manager.all_steps())
    if step not in steps:
        raise FileNotFoundError(f"no checkpoint of step {step} in {checkpoints.path}; steps there: {steps or 'none'}")


def metadata_of(checkpoints: Checkpoints, step: int) -> Any:
    """Shapes and dtypes of what was saved, as a tree."""
    metadata = checkpoints.manager.item_metadata(step)["state"]
    if metadata is None:
        raise FileNotFoundError("state has no metadata")
    return metadata


def _check_fits(checkpoints: Checkpoints, step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
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


def _describe(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
