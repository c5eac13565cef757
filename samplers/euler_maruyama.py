"""Euler-Maruyama on the reverse-time SDE that has the marginals of a flow."""

import jax
import jax.numpy as jnp
import numpy as np

from .diffusions import Diffusion
from .noise import fresh
from .types import Array, Batch, Keys, Net, Path, Times, check_times, full, intervals


def euler_maruyama(
    net: Net, x: Batch, times: Times, keys: Keys, *, path: Path, diffusion: Diffusion, end: float = 0.0
) -> Batch:
    """x + (s - t) (v - w score) + sqrt(2 w (t - s)) z from every t down to s; the last step adds no noise.

    dx = (v - w score) dt + sqrt(2 w) dW, backwards in time, has the flow's marginals for every w(t) >= 0, and the score
    is that of the velocity on `path` (Ma et al. 2024, SiT, eq. 4 and 9). w = 0 is `euler`. SiT's 250 steps
    are the times np.linspace(1, 0.04, 250): a last step of 0.04, since the score is 0/0 at data.

    Args:
        net: Velocity v(x, t) = dx/dt on `path`.
        x: State at times[0], [B, ...].
        times: Descending times at which the velocity is taken; sigma is positive there.
        keys: One key for each sample, [B].
        path: x_t = alpha x + sigma z.
        diffusion: w(t[B]) -> [B], one of `diffusions` or any other.
        end: Time of the returned state.

    Raises:
        ValueError: if w is negative or not finite at one of the times, with both.
    """
    _check_diffusion(diffusion, check_times(times, end=end))

    def expand(c: Array) -> Array:
        return c.reshape(c.shape + (1,) * (x.ndim - 1))

    def drift(x: Batch, t: Array) -> Batch:
        alpha, alpha_rate = jax.jvp(path.alpha, (t,), (jnp.ones_like(t),))
        sigma, sigma_rate = jax.jvp(path.sigma, (t,), (jnp.ones_like(t),))
        v = net(x, t)
        z = (expand(alpha_rate) * x - expand(alpha) * v) / expand(sigma * alpha_rate - alpha * sigma_rate)
        return v + expand(diffusion(t) / sigma) * z

    def mean(x: Batch, interval: Array) -> Batch:
        t, s = interval
        return x + (s - t) * drift(x, full(t, x))

    def step(x: Batch, numbered: tuple[Array, Array]) -> tuple[Batch, None]:
        number, (t, s) = numbered
        std = jnp.sqrt(2 * diffusion(full(t, x)) * (t - s))
        return (mean(x, numbered[1]) + expand(std) * fresh(keys, number, x)).astype(x.dtype), None

    steps = intervals(times, end=end)
    if len(steps) > 1:
        x = jax.lax.scan(step, x, (jnp.arange(1, len(steps)), steps[:-1]))[0]
    return mean(x, steps[-1]).astype(x.dtype)


def _check_diffusion(diffusion: Diffusion, grid: np.ndarray) -> None:
    with jax.ensure_compile_time_eval():
        w = np.asarray(diffusion(jnp.asarray(grid, jnp.result_type(float))))
    wrong = ~(np.isfinite(w) & (w >= 0))
    if wrong.any():
        raise ValueError(
            f"a diffusion must be finite and at least 0 at every time, got {w[wrong][0]} at t = {grid[wrong][0]:g}"
        )
