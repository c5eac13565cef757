"""Where a run goes on: the newest checkpoint, an older one, or the start."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from .agreement import on_first
from .checkpoint import Checkpoints
from .experiment import Experiment
from .progress import say
from .reading import Damaged, restore
from .refusal import Refused
from .rollback import set_newer_aside
from .state import State, place_state, shardings_of, state_like
from .workdir import check_fingerprint

PARTS = {"optimizer": "opt_state", "averages": "averages"}


class Resume(NamedTuple):
    """What the user allows a run that goes on; nothing by default.

    Attributes:
        step: the checkpoint to go on from, with newer ones moved aside; None is the newest.
        fallback: go back past damaged checkpoints, moving them aside.
        data_change: go on with other data, another order or batch size.
        config_change: go on with other values of the config.
        reset: parts of the state that start anew, of "optimizer" and "averages" (which start at the parameters).
    """

    step: int | None = None
    fallback: bool = False
    data_change: bool = False
    config_change: bool = False
    reset: tuple[str, ...] = ()


def starting_state(
    experiment: Experiment, mesh: Mesh, workdir: Path, checkpoints: Checkpoints, resume: Resume
) -> State:
    """The state to go on from on this mesh, or the initial state if there is no checkpoint.

    Raises:
        Refused: the checkpoint is damaged, or of another network, optimizer or data, and that was not allowed.
    """
    steps = sorted(checkpoints.manager.all_steps(), reverse=True)
    if not steps:
        return place_state(experiment, mesh)
    for step in steps:
        try:
            state = restore_state(experiment, mesh, checkpoints, step, resume)
        except Damaged as error:
            if not resume.fallback or step == steps[-1]:
                way = (
                    f"--allow_fallback goes back to step {max(s for s in steps if s < step)}"
                    if step > steps[-1]
                    else "there is no older one"
                )
                raise Refused(f"{error}; {way}") from error
            say(f"{error}; going back")
            continue
        if step < steps[0] or resume != Resume():  # what is there of later steps is not what will come now
            on_first(partial(_set_aside, workdir, step))
            checkpoints.manager.reload()
        return state
    raise AssertionError("the last one returns or raises")


def restore_state(experiment: Experiment, mesh: Mesh, checkpoints: Checkpoints, step: int, resume: Resume) -> State:
    """The state of one checkpoint, checked against the run.

    Raises:
        Damaged: it cannot be read, or its bits are not those that were saved.
        Refused: it is not of this network, optimizer or data.
    """
    unread = {PARTS[part] for part in resume.reset}
    like = state_like(experiment, mesh)
    wanted = {name: value for name, value in like._asdict().items() if name not in unread}

    def check(facts: dict[str, Any]) -> None:
        data = facts.get("data")
        if not isinstance(data, dict):
            raise Damaged(f"checkpoint {checkpoints.path / str(step)} is damaged: its facts have no data")
        if not resume.data_change:
            check_fingerprint(data, experiment.fingerprint)

    tree, _ = restore(checkpoints, wanted, step=step, unread=unread, check=check)

    # Arrays read from disk cannot be donated; a jitted copy can.
    def complete(tree: dict[str, Any]) -> State:
        tree = jax.tree.map(jnp.copy, tree)
        params = tree["params"]
        fresh = {
            "opt_state": lambda: experiment.optimizer.init(params),
            "averages": lambda: {name: jax.tree.map(jnp.copy, params) for name in experiment.averages},
        }
        return State(**tree, **{name: fresh[name]() for name in unread})

    return jax.jit(complete, out_shardings=shardings_of(like))(tree)


def _set_aside(workdir: Path, step: int) -> None:
    if aside := set_newer_aside(workdir, step):
        say(f"what was newer than step {step} is now in {aside}")
