"""A step towards the posterior mean over a set of data: what x_t alone says of x, in place of the x it was made of."""

import jax
import jax.numpy as jnp

from ._shapes import Array, Bool, Float
from .paths import Path, expand, interpolate
from .types import Batch, PerExample


def average(
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
    same class for a conditional network. Without any it is `steps.same_noise`, bit for bit. Given x_t the mean of the
    step is that of `same_noise` whatever the set, since the average is E[x | x_t, set]; the larger the set,
    the smaller its variance.

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

    Arguments as in `average`. Logits are relative to that of x, which is 0: then small sigma costs no
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
