"""Draw samples: image i depends on the seed and i alone."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int32, UInt8
from rich.console import Console
from rich.progress import Progress

from .devices import gather_rows, host_share, local_rows, mesh_of, on_mesh, rows_per_host, spread
from .images import to_uint8


@runtime_checkable
class Sampler(Protocol):
    """A way to sample, and what it costs.

    Attributes:
        name: as it appears in rows and tables.
        nfe: network evaluations for one image.
        sample: `sample(params, keys[B], labels[B] int32) -> images[B, H, W, C]` float32 in [-1, 1]; row i may
            depend on key i and label i alone. It is compiled as a whole.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def nfe(self) -> int: ...  # noqa: D102
    @property
    def sample(self) -> Callable[[Any, Array, Array], Array]: ...  # noqa: D102


def draw(
    sampler: Sampler, params: Any, *, n: int, seed: int, num_classes: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield exactly n samples, batch by batch, compiling once; progress goes to a terminal's stderr.

    Sample i has key `fold_in(key(seed), i)` and label `i % num_classes`. A batch is spread over the devices that the
    parameters are on, or all of this host's. Of several hosts each yields its own consecutive share of the n.

    Args:
        sampler: how to sample.
        params: parameters of its networks.
        n: number of samples.
        seed: of the keys.
        num_classes: 0 if the model is unconditional; it then gets labels 0, and None is yielded for labels.
        batch_size: images in one call, rounded up to a multiple of the devices.

    Yields:
        uint8 images [B, H, W, C] and int32 labels [B]; the last batch may be shorter.

    Raises:
        ValueError: n or batch_size is below 1, or images are not finite.
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")

    def sample(params: Any, indices: Int32[Array, " batch"]) -> tuple[Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)
        labels = indices % num_classes if num_classes else jnp.zeros_like(indices)
        return sampler.sample(params, keys, labels), labels

    mesh = mesh_of(params)
    spread_sample = jax.jit(sample, out_shardings=spread(mesh))
    rows = rows_per_host(min(batch_size, n), mesh)
    name = f"{sampler.name}, nfe {sampler.nfe}"
    return _batches(spread_sample, on_mesh(params, mesh), spread(mesh), name, n, rows, num_classes)


def draw_all(
    sampler: Sampler, params: Any, *, n: int, seed: int, num_classes: int, batch_size: int
) -> tuple[UInt8[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"] | None]:
    """All n samples of `draw` at once, for grids and files; `write_samples` stores them. All hosts get all of them."""
    images, labels = zip(
        *draw(sampler, params, n=n, seed=seed, num_classes=num_classes, batch_size=batch_size), strict=True
    )
    return gather_rows(np.concatenate(images)), gather_rows(np.concatenate(labels)) if num_classes else None


def _batches(
    sample: Callable[[Any, Array], tuple[Array, Array]],
    params: Any,
    sharding: NamedSharding,
    description: str,
    n: int,
    rows: int,
    num_classes: int,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    share = host_share(n)
    calls = math.ceil(math.ceil(n / jax.process_count()) / rows)  # hosts whose share is one smaller make as many
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=len(share))
        for call in range(calls):
            # The last batch runs on past the share at the compiled shape, and what lies beyond is dropped.
            start = share.start + call * rows
            indices = np.arange(start, start + rows, dtype=np.int32)
            images, labels = sample(params, jax.make_array_from_process_local_data(sharding, indices))
            count = min(rows, share.stop - start)
            if count > 0:
                yield to_uint8(local_rows(images)[:count]), local_rows(labels)[:count] if num_classes else None
                progress.advance(task, count)
