"""Steps from t to s < t: how a consistency loss finds the second point of its pair.

A step is `step(path, x, z, t, s) -> x_s`, where x_t = alpha x + sigma z is the first point. Bind a teacher or a
reference set with partial. At s = 0 every step ends at data: x itself, or an estimate of it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ._shapes import Array, Bool, Float
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


def reference_average(
    path: Path,
    x: Batch,
    z: Batch,
    t: PerExample,
    s: PerExample,
    *,
    references: Float[Array, "references *shape"],
    allowed: Bool[Array, "batch references"],
) -> Batch:
    """DDIM step towards the posterior mean of x_t over a reference set: SCT's target (Wang et al. 2024).

    The set of an example is x itself, always, and those references that are allowed for it: independent data, of the
    same class for a conditional network. Without any it is `same_noise`, bit for bit. Given x_t the mean of the step
    is that of `same_noise` whatever the set, since the average is E[x | x_t, set]; its variance falls with the set.

    Args:
        path: x_t = alpha x + sigma z.
        x: Data [B, ...].
        z: Noise [B, ...].
        t: Noise level of x_t, positive.
        s: Noise level to go to.
        references: Data [n, ...]; the batch itself is a good one, see `others`.
        allowed: Which references count for which example [B, n]; never x itself, which is in its set anyway.
    """
    mean = posterior_mean(path, x, z, t, references=references, allowed=allowed)
    alpha_t, sigma_t, alpha_s, sigma_s = (
        expand(c, x) for c in (path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s))
    )
    return interpolate(path, x, z, s) + (alpha_s - alpha_t * sigma_s / sigma_t) * (mean - x)


def posterior_mean(
    path: Path,
    x: Batch,
    z: Batch,
    t: PerExample,
    *,
    references: Float[Array, "references *shape"],
    allowed: Bool[Array, "batch references"],
) -> Batch:
    """E[x | x_t, reference set] = sum_j softmax_j(-|x_t - alpha y_j|^2 / (2 sigma^2)) y_j, y_0 = x.

    Arguments as in `reference_average`. Logits are relative to that of x, which is 0: then small sigma costs no
    digits where it matters, between x and all the rest.
    """
    highest = jax.lax.Precision.HIGHEST
    flat_x, flat_z, y = (a.reshape(len(a), x[0].size) for a in (x, z, references))
    ratio = (path.alpha(t) / path.sigma(t))[:, None]
    product = jnp.matmul(flat_x, y.T, precision=highest)
    squared = jnp.sum(flat_x**2, axis=1)[:, None] - 2 * product + jnp.sum(y**2, axis=1)
    along_z = jnp.sum(flat_x * flat_z, axis=1)[:, None] - jnp.matmul(flat_z, y.T, precision=highest)
    logits = jnp.where(allowed, -(ratio**2) * jnp.maximum(squared, 0) / 2 - ratio * along_z, -jnp.inf)
    weights = jax.nn.softmax(jnp.concatenate([jnp.zeros_like(ratio), logits], axis=1), axis=1)
    mean = weights[:, :1] * flat_x + jnp.matmul(weights[:, 1:], y, precision=highest)
    return mean.reshape(x.shape)


def others(n: int, labels: Array | None = None) -> Bool[Array, "batch batch"]:
    """`allowed` when the batch of n is its own reference set: all others, or all others of the same class."""
    same_class = True if labels is None else labels[:, None] == labels[None, :]
    return ~jnp.eye(n, dtype=bool) & same_class
