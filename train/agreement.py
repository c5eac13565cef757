"""What all processes of a run must have in common, and what one of them does for all."""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .refusal import Refused


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def gather_texts(text: str) -> list[str]:
    """The texts of all processes, in their order; all call this together."""
    if jax.process_count() == 1:
        return [text]
    raw = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray([len(raw)], np.int32)).ravel()
    if not lengths.max():
        return [""] * len(lengths)
    gathered = multihost_utils.process_allgather(np.pad(raw, (0, int(lengths.max()) - len(raw))))
    rows = np.asarray(gathered).reshape(len(lengths), -1)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def on_first(action: Callable[[], Any]) -> None:
    """Do something in process 0 alone, while the others wait; what it refuses is refused by all.

    Raises:
        Refused: with the text of a ValueError or OSError of the action.
    """
    problem = ""
    if is_first():
        try:
            action()
        except (ValueError, OSError) as error:
            problem = str(error) or type(error).__name__
    if told := gather_texts(problem)[0]:
        raise Refused(told)


def alike(action: Callable[[], Any], kinds: tuple[type[Exception], ...]) -> Any:
    """Do something in every process without the others; where it fails in one of them it fails in all.

    Args:
        action: what to do.
        kinds: the errors that it may raise, each made of a text alone.

    Returns:
        What the action gives in this process.

    Raises:
        Exception: of one of these kinds, with the text of the first process that raised one.
    """
    if jax.process_count() == 1:
        return action()
    told, result, cause = "", None, None
    try:
        result = action()
    except kinds as error:
        kind = next(index for index, kind in enumerate(kinds) if isinstance(error, kind))
        told, cause = f"{kind} {str(error) or type(error).__name__}", error
    for process, text in enumerate(gather_texts(told)):
        if text:
            number, _, problem = text.partition(" ")
            raise kinds[int(number)](f"process {process}: {problem}") from cause
    return result


def together(action: Callable[[], Any]) -> Any:
    """Do something in every process; what one of them refuses is refused by all.

    Returns:
        What the action gives in this process.

    Raises:
        Refused: with the text of the first process whose action raised a ValueError or OSError.
    """
    try:
        return alike(action, (ValueError, OSError))
    except (ValueError, OSError) as error:
        raise Refused(str(error) or type(error).__name__) from error


def check_alike(facts: dict[str, Any]) -> None:
    """Refuse to start if another process has other values.

    Args:
        facts: values by name, as JSON can hold them: of the config, hashes of the code, versions.

    Raises:
        Refused: in every process, with each value that differs from process 0's.
    """
    told = [json.loads(text) for text in gather_texts(json.dumps(facts))]
    differences = [
        f"{name}: {told[0].get(name, 'absent')!r} in process 0, {other.get(name, 'absent')!r} in process {index}"
        for index, other in enumerate(told)
        for name in sorted(told[0].keys() | other.keys())
        if told[0].get(name, "absent") != other.get(name, "absent")
    ]
    if differences:
        more = f"\n  and {len(differences) - 20} more" if len(differences) > 20 else ""
        raise Refused("the processes do not run the same:\n  " + "\n  ".join(differences[:20]) + more)


def stop_of_any(mesh: Mesh, *, delay: int) -> Callable[[bool], bool]:
    """A question that all processes ask once a step: was any of them told to stop? All get the same answer.

    With several processes it is the answer to what was asked `delay` calls ago, so that no step waits for it.
    """
    if jax.process_count() == 1:
        return lambda told: told
    spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    any_of = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
    answers: deque[jax.Array] = deque()
    own = len(mesh.local_devices)

    def ask(told: bool) -> bool:
        answers.append(any_of(jax.make_array_from_process_local_data(spread, np.full(own, told))))
        return len(answers) > delay and bool(answers.popleft())

    return ask
