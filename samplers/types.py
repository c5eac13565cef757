"""The head that all samplers share: (net, x, times, ...) -> x.

`times` lists the noise levels at which the network is called, in descending order, as an explicit array of length
one or more; every sampler then ends at `end`, 0 unless said otherwise, which is data. One time is one step.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

from ._shapes import Array, Float, Key

Batch: TypeAlias = Float[Array, "batch *shape"]
PerExample: TypeAlias = Float[Array, "batch"]
Keys: TypeAlias = Key[Array, "batch"]

Net: TypeAlias = Callable[[Array, Array], Array]
"""net(x[B, ...], t[B]) -> [B, ...]; velocity, denoiser or consistency function, as the sampler says"""

FlowMap: TypeAlias = Callable[[Array, Array, Array], Array]
"""flow_map(x[B, ...], t[B], s[B]) -> [B, ...], the state at time s <= t"""

Noise: TypeAlias = Callable[[Array, Array, Array], Array]
"""noise(keys[B], number, x[B, ...]) -> [B, ...], the number-th noise of each sample, which may depend on x"""

Times: TypeAlias = Array | np.ndarray | Sequence[float]


@runtime_checkable
class Path(Protocol):
    """Coefficients of x_t = alpha(t) x + sigma(t) z, as in fewstep.losses."""

    @property
    def alpha(self) -> Callable[[Array], Array]:
        """alpha(t[B]) -> [B]."""
        ...

    @property
    def sigma(self) -> Callable[[Array], Array]:
        """sigma(t[B]) -> [B]."""
        ...


def check_times(times: Times, *, end: float = 0.0) -> np.ndarray:
    """The times as a float64 array on the host.

    Raises:
        ValueError: if there is none, or one is not finite, or they do not fall strictly, or they do not stay above
            `end` >= 0; with the values.
        TypeError: if they are traced, since a grid must be known when the sampler is built.
    """
    if isinstance(times, jax.core.Tracer):
        raise TypeError("times must be concrete numbers: build the grid outside of jit and close over it")
    grid = np.asarray(times, np.float64)
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError(f"a sampler needs a one-dimensional array of at least one time, got shape {grid.shape}")
    if not np.isfinite([*grid, end]).all():
        raise ValueError(f"times must be finite, got {grid} ending at {end}")
    if (np.diff(grid) >= 0).any():
        raise ValueError(f"times must fall from noise to data, strictly, got {grid}")
    if not grid[-1] > end >= 0:
        raise ValueError(f"times must stay above the end {end} >= 0, got {grid}")
    return grid


def intervals(times: Times, *, end: float = 0.0) -> Array:
    """(t, s) of each step, [N, 2]: from every time to the next, and from the last to the end."""
    grid = check_times(times, end=end)
    return jax.numpy.asarray(np.stack([grid, np.append(grid[1:], end)], axis=1), jax.numpy.result_type(float))


def full(t: Array, x: Batch) -> PerExample:
    """One scalar time for every example of x, [B] in float32 or wider."""
    return jax.numpy.broadcast_to(t, x.shape[:1])
