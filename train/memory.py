"""What to do when the devices have too little memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from .experiment import Experiment


class OutOfMemory(MemoryError):
    """The run does not fit the devices; the text names what would make it smaller."""


@contextmanager
def explaining_memory(experiment: Experiment) -> Iterator[None]:
    """Turn the runtime's error into one that says what to change; nothing is written on the way.

    Raises:
        OutOfMemory: in place of the runtime's RESOURCE_EXHAUSTED.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        devices, parts = jax.device_count(), experiment.accumulate
        rows = experiment.batch_size // (devices * parts)
        smaller = (
            f"accumulate={2 * parts} halves them and leaves the batch as it is" if rows > 1 else "there are no fewer"
        )
        raise OutOfMemory(
            f"out of memory with batch_size {experiment.batch_size} in {parts} micro-batches on {devices} devices, "
            f"{rows} examples at a time on each: {smaller}; a smaller batch_size, more devices, or "
            f"fsdp={2 * experiment.fsdp} to share the state between devices need less too. "
            f"{str(error).splitlines()[0][:300]}"
        ) from error
