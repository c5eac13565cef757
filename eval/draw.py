"""Draw samples: image i depends on the seed and i alone."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8
from rich.console import Console
from rich.progress import Progress

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

    Sample i has key `fold_in(key(seed), i)` and label `i % num_classes`.

    Args:
        sampler: how to sample.
        params: parameters of its networks.
        n: number of samples.
        seed: of the keys.
        num_classes: 0 if the model is unconditional; it then gets labels 0, and None is yielded for labels.
        batch_size: images in one call.

    Yields:
        uint8 images [B, H, W, C] and int32 labels [B]; the last batch may be shorter.

    Raises:
        ValueError: n or batch_size is below 1, or images are not finite.
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")

    @jax.jit
    def sample(params: Any, indices: Int32[Array, " batch"]) -> tuple[Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)
        labels = indices % num_classes if num_classes else jnp.zeros_like(indices)
        return sampler.sample(params, keys, labels), labels

    return _batches(sample, params, f"{sampler.name}, nfe {sampler.nfe}", n, min(batch_size, n), num_classes)


def draw_all(
    sampler: Sampler, params: Any, *, n: int, seed: int, num_classes: int, batch_size: int
) -> tuple[UInt8[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"] | None]:
    """All n samples of `draw` at once, for grids and files; `write_samples` stores them."""
    images, labels = zip(
        *draw(sampler, params, n=n, seed=seed, num_classes=num_classes, batch_size=batch_size), strict=True
    )
    return np.concatenate(images), np.concatenate(labels) if num_classes else None


def _batches(
    sample: Callable[[Any, np.ndarray], tuple[Array, Array]],
    params: Any,
    description: str,
    n: int,
    batch_size: int,
    num_classes: int,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=n)
        for start in range(0, n, batch_size):
            # The last batch runs on past n at the compiled shape, and what lies beyond is dropped.
            images, labels = sample(params, np.arange(start, start + batch_size, dtype=np.int32))
            count = min(batch_size, n - start)
            yield to_uint8(images[:count]), np.asarray(labels)[:count] if num_classes else None
            progress.advance(task, count)
