"""EDM's stochastic sampler: Heun steps with noise added before each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .euler import euler
from .heun import heun_step
from .noise import fresh
from .types import Array, Batch, Keys, Net, Times, check_times


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


def edm_stochastic(net: Net, x: Batch, times: Times, keys: Keys, *, churn: Churn = Churn()) -> Batch:
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
    if not (churn.amount >= 0 and churn.noise >= 0 and 0 <= churn.low <= churn.high):
        raise ValueError(f"churn needs amount, noise >= 0 and 0 <= low <= high, got {churn}")
    grid = check_times(times)
    gamma = min(churn.amount / len(grid), 2**0.5 - 1)

    def velocity(x: Batch, t: Array) -> Batch:
        return (x - net(x, t)) / t.reshape(t.shape + (1,) * (x.ndim - 1))

    raised = np.where((churn.low <= grid) & (grid <= churn.high), grid * (1 + gamma), grid)
    added = churn.noise * np.sqrt(raised**2 - grid**2)

    def add_noise(x: Batch, number: int | Array, amount: float | Array) -> Batch:
        return (x + amount * fresh(keys, number, x)).astype(x.dtype)

    def step(x: Batch, level: tuple[Array, Array]) -> tuple[Batch, None]:
        number, (amount, t, s) = level
        return heun_step(velocity, add_noise(x, number, amount), t, s), None

    if len(grid) > 1:
        levels = jnp.asarray(np.stack([added[:-1], raised[:-1], grid[1:]], axis=1), jnp.result_type(float))
        x = jax.lax.scan(step, x, (jnp.arange(1, len(grid)), levels))[0]
    return euler(velocity, add_noise(x, len(grid), float(added[-1])), raised[-1:])
