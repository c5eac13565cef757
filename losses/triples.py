"""Triple laws: the three times of a trajectory consistency loss, which jumps from t, and from u < t, to the same s.

A law is `triples(key, n) -> t[n], u[n], s[n]` with s <= u < t. In `ctm`, `tcd` and `pcm` all three are of one ascending
grid of the path's times: `pairs.karras_grid`, `pairs.ddim_grid`, or one's own. Bind the numbers with partial.
"""

import jax
import jax.numpy as jnp
import numpy as np

from .pairs import ascending
from .paths import Path
from .types import Array, Key, Pairs, PerExample, Schedule

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


def midpoint(key: Key, n: int, *, pairs: Pairs) -> Triple:
    """U half way between the t and s of a law of pairs, as in Shortcut; weights are not looked at."""
    t, s, _ = pairs(key, n)
    return t, (t + s) / 2, s


def split(key: Key, n: int, *, pairs: Pairs) -> Triple:
    """U uniform between the t and s of a law of pairs; weights are not looked at (Boffi et al. 2025)."""
    key_pairs, key_share = jax.random.split(key)
    t, s, _ = pairs(key_pairs, n)
    return t, s + jax.random.uniform(key_share, (n,)) * (t - s), s


def imm(
    key: Key,
    n: int,
    *,
    path: Path,
    time_of: Schedule,
    low: float = 0.006,
    high: float = 0.994,
    halvings: int = 12,
) -> Triple:
    """T uniform on (low, high], s uniform on (low, t), and u a fixed step of sigma / alpha below t, or s (IMM).

    With eta = sigma / alpha, u = max(s, eta^-1(eta(t) - (eta(high) - eta(low)) / 2^halvings)) (Zhou et al. 2025): the
    noisier, the smaller is the step of time.

    Args:
        key: Draws t and s.
        n: Groups.
        path: x_t = alpha x + sigma z.
        time_of: The inverse of eta: eta / (1 + eta) on `linear`, 2 arctan(eta) / pi on `cosine`.
        low: Least time; 0.006 on CIFAR-10.
        high: Largest time, below that of pure noise where eta would be infinite.
        halvings: 12 on ImageNet, 15 on CIFAR-10.

    Raises:
        ValueError: unless 0 <= low < high and halvings >= 1.
    """
    if not 0 <= low < high or halvings < 1:
        raise ValueError(f"imm needs 0 <= low < high and halvings >= 1, got {low=}, {high=}, {halvings=}")

    def eta(t: Array) -> Array:
        return path.sigma(t) / path.alpha(t)

    key_t, key_s = jax.random.split(key)
    t = high - (high - low) * jax.random.uniform(key_t, (n,))  # never low itself: eta and its logarithm stay finite
    s = low + (t - low) * jax.random.uniform(key_s, (n,))
    edges = jnp.asarray([low, high], t.dtype)
    step = (eta(edges[1]) - eta(edges[0])) / 2**halvings
    return t, jnp.maximum(s, time_of(jnp.maximum(eta(t) - step, 0.0))), s


def _below(key: Key, n: int, grid: np.ndarray, h: Array | int) -> Triple:
    """(t, u, s) with u uniform among those that have an entry h above, and s uniform on u and all below."""
    key_u, key_s = jax.random.split(key)
    levels = jnp.asarray(grid, jnp.result_type(float))
    u = jax.random.randint(key_u, (n,), 0, len(grid) - h)
    s = jax.random.randint(key_s, (n,), 0, u + 1)
    return levels[u + h], levels[u], levels[s]
