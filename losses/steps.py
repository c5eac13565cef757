"""Steps from t to s < t: how a consistency loss finds the second point of its pair.

A step is `step(path, x, z, t, s) -> x_s`, where x_t = alpha x + sigma z is the first point. Bind a teacher with
partial; `reference_sets.average` is a step too. At s = 0 every step ends at data: x itself, or an estimate of it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ._shapes import Array
from .conversions import ddim_jump, second_order_jump
from .pairs import ascending
from .paths import Path, expand, interpolate
from .types import Batch, FlowMap, Net, PerExample


def same_noise(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample) -> Batch:
    """The same x and z at s: consistency training (Song et al. 2023, alg. 3)."""
    return interpolate(path, x, z, s)


def euler(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, velocity: Net) -> Batch:
    """One Euler step of the teacher's ODE: consistency distillation (Song et al. 2023, alg. 2).

    `velocity` is the teacher's dx_t/dt on `path`, guided or not. The error of one step is O((t - s)^2).
    """
    x_t = interpolate(path, x, z, t)
    return x_t + expand(s - t, x) * velocity(x_t, t)


def heun(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, velocity: Net) -> Batch:
    """One Heun step of the teacher's ODE, the published choice; two calls, error O((t - s)^3).

    The velocity is also called at s, so pairs must keep s above 0 where it is 0/0 there, as `pairs.ct` does.
    """
    x_t = interpolate(path, x, z, t)
    v = velocity(x_t, t)
    v_end = velocity(x_t + expand(s - t, x) * v, s)
    return x_t + expand(s - t, x) * (v + v_end) / 2


def heun_on_grid(
    path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, velocity: Net, grid: np.ndarray
) -> Batch:
    """Heun steps of the teacher's ODE over every interval of a grid from t down to s: CTM (Kim et al. 2023, alg. 1).

    t and s are on the grid, so the number of steps follows from them and is no argument. It is traced: the loop takes
    as many as the longest way in the batch, one and the same for all in CTM's law, where a loop of fixed length would
    always pay for the longest way there is. An example that has arrived waits.

    Args:
        path: x_t = alpha x + sigma z.
        x: Data [B, ...].
        z: Noise [B, ...].
        t: Start, on the grid.
        s: End, on the grid.
        velocity: The teacher's dx_t/dt on `path`; two calls a step.
        grid: Ascending times, the one of the law of (t, s).

    Raises:
        ValueError: for what is not a grid.
    """
    levels = jnp.asarray(ascending(grid), t.dtype)
    start, end = (jnp.searchsorted((levels[1:] + levels[:-1]) / 2, r) for r in (t, s))

    def step(k: Array | int, x_r: Batch) -> Batch:
        r, q = (levels[jnp.maximum(start - i, end)] for i in (k, k + 1))
        v = velocity(x_r, r)
        v_end = velocity(x_r + expand(q - r, x) * v, q)
        return x_r + expand(q - r, x) * (v + v_end) / 2

    return jax.lax.fori_loop(0, jnp.max(start - end), step, interpolate(path, x, z, t))


def ddim(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, denoiser: Net) -> Batch:
    """One DDIM step of the teacher: latent consistency distillation (Luo et al. 2023, alg. 1), TCD, PCM.

    `denoiser` is the teacher's data prediction on `path`, guided or not: the step is affine in it, and so guidance of
    the denoiser, of the noise and of the jump are one. The last step may end at sigma = 0.
    """
    x_t = interpolate(path, x, z, t)
    return ddim_jump(path, x_t, denoiser(x_t, t), t, s)


def jump(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, flow_map: FlowMap) -> Batch:
    """One jump of a flow map: what CTM without a teacher has in its place, its own at averaged parameters.

    Such a loss is 0 for any maps that compose, so something else must tie them to the data: CTM's denoising loss.
    """
    return flow_map(interpolate(path, x, z, t), t, s)


def dpm_solver(path: Path, x: Batch, z: Batch, t: PerExample, s: PerExample, *, denoiser: Net) -> Batch:
    """One DPM-Solver++ (2S) step of the teacher: LCM's other solver (Lu et al. 2022, alg. 1); two calls, error O(h^3).

    `denoiser` is the teacher's data prediction on `path`, guided or not, and also called at (t + s) / 2. h is the
    difference of the log signal-to-noise ratios, so sigma(s) must be positive.
    """
    return second_order_jump(path, denoiser, interpolate(path, x, z, t), t, s)
