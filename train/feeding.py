"""From the examples that each process reads to batches over all devices."""

from collections.abc import Iterator

import jax
from jax.sharding import Mesh, NamedSharding

from .experiment import Batch, Experiment
from .sharding import batch_sharding


def local_rows(sharding: NamedSharding, batch_size: int) -> list[int]:
    """The rows of a global batch that lie on devices of this process, ascending."""
    slices = filter(None, sharding.addressable_devices_indices_map((batch_size,)).values())
    return sorted({row for (rows,) in slices for row in range(*rows.indices(batch_size))})


def global_batches(experiment: Experiment, mesh: Mesh, start_step: int) -> Iterator[Batch]:
    """Batches over the mesh from a step on; of several processes each reads its own rows alone.

    Raises:
        ValueError: a batch of another number of rows than was asked for.
    """
    spread = batch_sharding(mesh)
    rows = local_rows(spread, experiment.batch_size)

    def place(x):
        if len(x) != len(rows):
            raise ValueError(f"a batch has {len(x)} rows where {len(rows)} of {experiment.batch_size} were asked for")
        return jax.make_array_from_process_local_data(spread, x, (experiment.batch_size, *x.shape[1:]))

    for batch in experiment.batches(start_step, rows):
        yield jax.tree.map(place, batch)
