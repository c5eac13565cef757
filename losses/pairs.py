"""Pair laws: the two noise levels a consistency loss compares, and the weight of that comparison.

A law is `pairs(key, n) -> t[n], s[n], weight[n]` with s < t. On the EDM path, where t is the noise standard deviation,
but for `lcm`, `ordered` and the logit-normal laws, whose t is their path's. Bind the traced curriculum value and the
numbers with partial.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfinv

from .times import logit_normal, uniform
from .types import Array, Key, PerExample, Times, Weight

Triple = tuple[PerExample, PerExample, PerExample]


def karras_time(i: Array, points: Array | int, *, sigma_min: float, sigma_max: float, rho: float) -> Array:
    """Ascending grid point i in [0, points - 1] of Karras et al. 2022, eq. 5; i and points may be traced."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + i / (points - 1) * (high - low)) ** rho


def karras_grid(points: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """The whole of that grid, ascending, in float64 on the host; its ends are sigma_min and sigma_max to the bit.

    Raises:
        ValueError: unless points >= 2 and 0 < sigma_min < sigma_max and rho > 0.
    """
    if points < 2 or not 0 < sigma_min < sigma_max or not rho > 0:
        raise ValueError(
            f"karras_grid needs points >= 2, 0 < sigma_min < sigma_max and rho > 0, "
            f"got {points=}, {sigma_min=}, {sigma_max=}, {rho=}"
        )
    grid = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), points) ** rho
    grid[[0, -1]] = sigma_min, sigma_max
    return grid


def ddim_grid(solver_steps: int = 50, *, steps: int = 1000) -> np.ndarray:
    """0, k - 1, 2k - 1, ..., steps - 1 with k = steps / solver_steps: 0, 19, 39, ..., 999, ascending.

    The timesteps of a DDIM solver of so many steps on a schedule of `steps`, as LCM, TCD and PCM count them: one step
    takes entry i + 1 to entry i and skips k timesteps, and the last, of k - 1, ends at timestep 0.

    Raises:
        ValueError: unless solver_steps divides steps and is less.
    """
    if not 1 <= solver_steps < steps or steps % solver_steps:
        raise ValueError(f"solver_steps must divide {steps} and be less, got {solver_steps}")
    return np.append(0.0, steps // solver_steps * np.arange(1.0, solver_steps + 1) - 1)


def ascending(grid: np.ndarray) -> np.ndarray:
    """The grid, checked.

    Raises:
        ValueError: unless it is one-dimensional, of two or more finite times >= 0, and rises strictly.
    """
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise ValueError(f"a grid is two or more finite times >= 0 that rise strictly, got {grid}")
    return grid


def interval(
    i: Array, points: Array | int, *, sigma_min: float, sigma_max: float, rho: float
) -> tuple[PerExample, PerExample]:
    """(s, t): the two ends of interval i in [0, points - 2] of that grid."""
    s, t = (karras_time(j, points, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho) for j in (i, i + 1))
    return s, t


def ct(
    key: Key, n: int, *, points: Array | int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Triple:
    """Neighbours of a grid of `points` levels, every interval equally often, weight 1 (Song et al. 2023, alg. 3)."""
    i = jax.random.randint(key, (n,), 0, points - 1)
    s, t = interval(i, points, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    return t, s, jnp.ones_like(t)


def ict(
    key: Key,
    n: int,
    *,
    points: Array | int,
    mean: float = -1.1,
    std: float = 2.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Triple:
    """Neighbours of the grid with lognormal frequencies and weight 1/(t - s) (Song & Dhariwal 2023, eq. 9 and 10).

    An interval's probability is the mass of ln sigma ~ N(mean, std^2) inside it, so a draw of the truncated law
    falls into its interval: no table of probabilities, whose length would depend on the stage.
    """
    low, high = (erf((np.log(edge) - mean) / (np.sqrt(2) * std)) for edge in (sigma_min, sigma_max))
    u = jax.random.uniform(key, (n,), minval=low, maxval=high)
    sigma = jnp.exp(mean + np.sqrt(2) * std * erfinv(u))
    root_min, root_max = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    position = (sigma ** (1 / rho) - root_min) / (root_max - root_min) * (points - 1)
    i = jnp.clip(jnp.floor(position), 0, points - 2)
    s, t = interval(i, points, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    return t, s, 1 / (t - s)


def ect(
    key: Key,
    n: int,
    *,
    stage: Array | int,
    mean: float = -1.1,
    std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    weight: Weight | None = None,
    sigma_max: float = np.inf,
) -> Triple:
    """ln t ~ N(mean, std^2), s = max(0, t - hop), hop = t (1 + k sigmoid(-b t)) / q^(stage + 1).

    The weight is 1/(t - s), as on CIFAR-10, unless one of t is given: the ImageNet runs take `edm_weight`. Where the
    hop reaches zero noise, s is exactly 0 and the pair is a denoising pair; at stage 0 with q = 2 that is every
    t <= ln 7. Source: Geng et al. 2024, eq. 12 to 14.

    Levels above `sigma_max` become sigma_max: for paths that end there.

    Raises:
        ValueError: unless q > 1.
    """
    t = jnp.minimum(jnp.exp(mean + std * jax.random.normal(key, (n,))), sigma_max)
    s, hop = ect_hop(t, stage=stage, q=q, k=k, b=b)
    return t, s, 1 / hop if weight is None else weight(t)


def ect_hop(
    t: PerExample, *, stage: Array | int, q: float = 2.0, k: float = 8.0, b: float = 1.0
) -> tuple[PerExample, PerExample]:
    """(s, t - s) of ECT's mapping; the difference is formed first, since t - s would cancel at late stages.

    Raises:
        ValueError: unless q > 1, without which no stage is closer than the one before it.
    """
    if not q > 1:
        raise ValueError(f"ect needs q > 1, got q={q}")
    hop = jnp.minimum(t, t * (1 + k * jax.nn.sigmoid(-b * t)) / q ** (stage + 1.0))
    return t - hop, hop


def lcm(key: Key, n: int, *, grid: np.ndarray) -> Triple:
    """Neighbours of an ascending grid, every interval equally often, weight 1 (Luo et al. 2023, alg. 1).

    The grid is `ddim_grid(50)`, where one step of the solver skips k = 20 timesteps, or one in the time of another
    path. Where s is its first entry 0, `consistency` compares with x_s, as the authors' code does.

    Raises:
        ValueError: for what is not a grid.
    """
    levels = jnp.asarray(ascending(grid), jnp.result_type(float))
    i = jax.random.randint(key, (n,), 0, len(grid) - 1)
    return levels[i + 1], levels[i], jnp.ones(n, levels.dtype)


def ordered(key: Key, n: int, *, times: Times = uniform, to_data: float = 0.0, same: float = 0.0) -> Triple:
    """t the larger and s the smaller of two draws of a law, weight 1; uniform times are uniform where s <= t.

    Args:
        key: Draws all.
        n: Batch.
        times: Law of both, on the path's own times.
        to_data: Share of the pairs whose s is 0, data, instead.
        same: Share of the pairs whose s is t instead, where a flow map is its velocity.

    Raises:
        ValueError: unless both shares are at least 0 and together at most 1.
    """
    if not (to_data >= 0 and same >= 0 and to_data + same <= 1):
        raise ValueError(f"shares must be at least 0 and together at most 1, got {to_data=}, {same=}")
    key_first, key_second, key_kind = jax.random.split(key, 3)
    first, second = times(key_first, n), times(key_second, n)
    t, s, kind = jnp.maximum(first, second), jnp.minimum(first, second), jax.random.uniform(key_kind, (n,))
    s = jnp.where(kind < to_data, 0.0, jnp.where(kind >= 1 - same, t, s))
    return t, s, jnp.ones_like(t)


def sorted_logit_normal(key: Key, n: int, *, mean: float = -0.4, std: float = 1.0) -> Triple:
    """The larger and the smaller of two draws of logit t ~ N(mean, std^2), weight 1 (Geng et al. 2025)."""
    return ordered(key, n, times=partial(logit_normal, mean=mean, std=std))


def capped_logit_normal(
    key: Key, n: int, *, mean: float = -0.6, std: float = 1.6, mean_s: float = -4.0, std_s: float = 1.6
) -> Triple:
    """Logit t ~ N(mean, std^2), logit s ~ N(mean_s, std_s^2) and at most t, weight 1: MeanFlow's code for CIFAR-10.

    Where s is drawn above t, s = t.
    """
    key_t, key_s = jax.random.split(key)
    t = logit_normal(key_t, n, mean=mean, std=std)
    return t, jnp.minimum(t, logit_normal(key_s, n, mean=mean_s, std=std_s)), jnp.ones_like(t)
