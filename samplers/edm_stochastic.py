"""EDM's stochastic sampler: Heun steps with noise added before each."""

from typing import NamedTuple

import jax.numpy as jnp

from ._shapes import Key
from .heun import heun
from .noise import fresh
from .types import Array, Batch, Net, Times, check_times


class Churn(NamedTuple):
    """How much noise to add, where, and how strong (Karras et al. 2022, table 5 has the published values).

    Attributes:
        amount: S_churn; a step's noise level rises by the factor min(amount / N, sqrt(2) - 1). 0 is deterministic.
        low: S_tmin, no noise is added below.
        high: S_tmax, no noise is added above.
        noise: S_noise, standard deviation of the added noise relative to what the level asks for.
    """

    amount: float = 40.0
    low: float = 0.05
    high: float = 50.0
    noise: float = 1.003


def edm_stochastic(net: Net, x: Batch, times: Times, keys: Key, *, churn: Churn = Churn()) -> Batch:
    """Raise the noise level a little, then one Heun step down; ends at 0 (Karras et al. 2022, alg. 2).

    Args:
        net: Denoiser D(x, t) on the EDM path.
        x: State at times[0], [B, ...]: times[0] times standard noise.
        times: Descending noise levels.
        keys: One key for each sample, [B].
        churn: The amount of noise; its default is the published ImageNet-64 setting.

    Raises:
        ValueError: for a churn that is negative or an empty range.
    """
    if churn.amount < 0 or churn.noise < 0 or not 0 <= churn.low <= churn.high:
        raise ValueError(f"churn needs amount, noise >= 0 and 0 <= low <= high, got {churn}")
    grid = check_times(times)
    gamma = min(churn.amount / len(grid), 2**0.5 - 1)

    def velocity(x: Batch, t: Array) -> Batch:
        return (x - net(x, t)) / t.reshape(t.shape + (1,) * (x.ndim - 1))

    # The levels are known on the host, so each step is a call of heun on its own two-point grid: N is small here.
    for i, (t, s) in enumerate(zip(grid, [*grid[1:], 0.0], strict=True)):
        t_raised = t * (1 + gamma) if churn.low <= t <= churn.high else t
        x = x + jnp.sqrt(t_raised**2 - t**2) * churn.noise * fresh(keys, i + 1, x)
        x = heun(velocity, x, [t_raised], end=s)
    return x
