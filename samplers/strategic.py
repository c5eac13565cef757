"""Stochastic sampling of a flow map: jump below the next time, and noise up to it."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .noise import fresh
from .types import Array, Batch, FlowMap, Keys, Path, Times, check_times, full

Stop: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""stop(next times, float64) -> where to jump before noise takes the state up to them, each at most the time itself"""


def strategic(
    flow_map: FlowMap, x: Batch, times: Times, keys: Keys, *, path: Path, stop: Stop, end: float = 0.0
) -> Batch:
    """From each time jump to stop(next time), then noise up to that next time; last jump to the end, without noise.

    x_s = flow_map(x_t, t, s) and x_t' = (alpha_t' / alpha_s) x_s + sqrt(sigma_t'^2 - (sigma_s alpha_t' / alpha_s)^2) z,
    which has the law of the state at t' if x_s has that of the state at s (Zheng et al. 2024). With s = t' it
    is deterministic and draws nothing that counts; with s = end it is `multistep_consistency`.

    Args:
        flow_map: (x_t, t, s) -> state at s.
        x: State at times[0], [B, ...].
        times: Descending times at which the flow map is called; one time is one jump to the end.
        keys: One key for each sample, [B].
        path: x_t = alpha x + sigma z; alpha must be positive at the stops.
        stop: `shortened(eta)`, TCD's `shortened_index(eta)`, CTM's `gamma_stop(gamma)`, or one's own.
        end: Time of the returned state.

    Raises:
        ValueError: for times that do not fall strictly, or a stop above its time or below the end.
    """
    grid = check_times(times, end=end)
    later = grid[1:]
    stops = np.asarray(stop(later), np.float64)
    if stops.shape != later.shape or not ((end <= stops) & (stops <= later)).all():
        raise ValueError(f"stops must lie between the end {end} and their times {later}, got {stops}")

    def jump_and_noise(x: Batch, step: tuple[Array, Array]) -> tuple[Batch, None]:
        number, (t, s, t_next) = step
        x_s = flow_map(x, full(t, x), full(s, x))
        ratio = path.alpha(t_next) / path.alpha(s)
        kept, all_noise = ratio * path.sigma(s), path.sigma(t_next)
        # Exactly 0 without a stop: a rounding error of the variance would be 0.02 of noise at sigma = 80 in float32.
        variance = jnp.where(s < t_next, (all_noise - kept) * (all_noise + kept), 0.0)
        sigma = jnp.sqrt(jnp.maximum(variance, 0.0))
        return (ratio * x_s + sigma * fresh(keys, number, x)).astype(x.dtype), None

    levels = jnp.asarray(np.stack([grid[:-1], stops, later], axis=1), jnp.result_type(float))
    if len(later) > 0:
        x = jax.lax.scan(jump_and_noise, x, (1 + jnp.arange(len(later)), levels))[0]
    last, final = (full(jnp.asarray(r, jnp.result_type(float)), x) for r in (grid[-1], end))
    return flow_map(x, last, final).astype(x.dtype)


def shortened(eta: float) -> Stop:
    """S = (1 - eta) t: 0 is deterministic, 1 noises from t = 0 every time.

    Raises:
        ValueError: unless 0 <= eta <= 1.
    """
    _check_share("eta", eta)
    return lambda t: (1 - eta) * t


def shortened_index(eta: float = 0.3) -> Stop:
    """S = floor((1 - eta) t), for paths whose time is a timestep: TCD as released; from 759 with 0.3 it is 531.

    How much noise that is depends on the schedule: shares of the index are not shares of the noise level.

    Raises:
        ValueError: unless 0 <= eta <= 1.
    """
    _check_share("eta", eta)
    return lambda t: np.floor((1 - eta) * t)


def gamma_stop(gamma: float, *, sigma_min: float = 0.002) -> Stop:
    """S = sigma_min + sqrt(1 - gamma^2) (t - sigma_min), for the EDM path: CTM's gamma sampling (Kim et al. 2023).

    0 is deterministic, 1 is `multistep_consistency` with that sigma_min. `end` must be sigma_min too.

    Raises:
        ValueError: unless 0 <= gamma <= 1 and sigma_min >= 0.
    """
    _check_share("gamma", gamma)
    if not 0 <= sigma_min < np.inf:
        raise ValueError(f"sigma_min must be finite and not negative, got {sigma_min}")
    root = (1 - gamma**2) ** 0.5
    return lambda t: root * t + (1 - root) * sigma_min


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {share}")
