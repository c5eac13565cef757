"""Triple laws: the three times of a trajectory consistency loss, which jumps from t, and from u < t, to the same s.

A law is `triples(key, n) -> t[n], u[n], s[n]` with s <= u < t, all three of one ascending grid of the path's times:
`pairs.karras_grid`, `pairs.ddim_grid`, or one's own. Bind the numbers with partial.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .pairs import ascending
from .types import Array, Key, PerExample

Triple = tuple[PerExample, PerExample, PerExample]


def ctm(key: Key, n: int, *, grid: np.ndarray, substeps: int) -> Triple:
    """U lies h entries below t, h the same for the whole batch with p(h) ~ h, and s anywhere below (Kim et al. 2023).

    t is uniform on what leaves room for h, s uniform on u and all below. The teacher goes from t to u by
    `steps.heun_on_grid` on the same grid, h steps. Large h are frequent: (2 substeps + 1) / 3 on average.

    Args:
        key: Draws h, t and s.
        n: Batch.
        grid: `pairs.karras_grid(18)` on CIFAR-10, 40 points on ImageNet.
        substeps: The largest h, at most points - 1: 17 on CIFAR-10, 39 on ImageNet, 20 there with the discriminator.

    Raises:
        ValueError: for what is not a grid, or substeps beyond it.
    """
    if not 1 <= substeps < len(ascending(grid)):
        raise ValueError(f"substeps must lie in [1, {len(grid) - 1}] on a grid of {len(grid)} points, got {substeps}")
    key_h, key_times = jax.random.split(key)
    return _below(key_times, n, grid, 1 + jax.random.categorical(key_h, jnp.log(jnp.arange(1, substeps + 1))))


def tcd(key: Key, n: int, *, grid: np.ndarray) -> Triple:
    """Neighbours t and u, uniform, and s uniform on u and all below (Zheng et al. 2024, alg. 1).

    The grid is `pairs.ddim_grid(50)`, where one step of the solver skips k = 20 timesteps. This is `ctm` with one
    sub-step.

    Raises:
        ValueError: for what is not a grid.
    """
    return _below(key, n, ascending(grid), 1)


def pcm(key: Key, n: int, *, grid: np.ndarray, phases: int) -> Triple:
    """Neighbours t and u, uniform, and s the end of the phase of t: u itself in its last step (Wang et al. 2024).

    All phases have as many intervals of the grid, and the model is sampled at their edges alone: `grids.phased` of
    samplers for a `pairs.ddim_grid`. The authors also take numbers that do not divide, 50 and 4, and then train the
    edges 739, 499, 239 where their sampler visits 749, 499, 249; here that is an error.

    Raises:
        ValueError: for what is not a grid, or phases that do not divide it.
    """
    size, rest = divmod(len(ascending(grid)) - 1, max(phases, 1))
    if phases < 1 or rest:
        raise ValueError(f"phases must divide the {len(grid) - 1} intervals of the grid, got {phases}")
    levels = jnp.asarray(grid, jnp.result_type(float))
    i = jax.random.randint(key, (n,), 0, len(grid) - 1)
    return levels[i + 1], levels[i], levels[i // size * size]


def _below(key: Key, n: int, grid: np.ndarray, h: Array | int) -> Triple:
    """(t, u, s) with u uniform among those that have an entry h above, and s uniform on u and all below."""
    key_u, key_s = jax.random.split(key)
    levels = jnp.asarray(grid, jnp.result_type(float))
    u = jax.random.randint(key_u, (n,), 0, len(grid) - h)
    s = jax.random.randint(key_s, (n,), 0, u + 1)
    return levels[u + h], levels[u], levels[s]
