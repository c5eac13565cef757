"""Multistep consistency models, trained or distilled: consistency within each of a few segments of the trajectory."""

from functools import partial

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2, pseudo_huber
from .paths import Path, at_least_float32, cosine, expand, interpolate
from .types import Array, Batch, Coupling, Distance, Key, Loss, Net, Weight
from .weights import v_weight


def segment_consistency(
    net: Net,
    x: Batch,
    key: Key,
    *,
    segments: int,
    intervals: Array | int,
    teacher: Net | None = None,
    unguided: Net | None = None,
    eta: float = 0.75,
    distance: Distance = partial(pseudo_huber, c=1e-4),
    weight: Weight = partial(v_weight, path=cosine),
    path: Path = cosine,
    end: float = 1.0,
    coupling: Coupling = independent,
) -> Loss:
    """weight(t) d(net(x_t, t), target), both of which DDIM takes to the same point at the end of t's segment.

    The step from t to s = t - end / (segments intervals) goes along the data (training) or along the teacher's
    prediction by aDDIM (distillation); from s on, the network's own prediction goes on to the segment's end. The
    target is the data prediction at t that would get there at once. The paper finds it by inverse DDIM from the point
    reached; written out, that is a mixture of the two predictions, without the paper's 0/0 where s is the segment's
    end (Heek et al. 2024).

    Args:
        net: Data prediction; DDIM takes (net(x_t, t), x_t) to the end of the segment of t. An ordinary denoiser has the
            same form, and is what one starts from.
        x: Data [B, ...].
        key: Draws segment, interval and z.
        segments: Steps of the sampler, `ddim` at the times end, end (S - 1)/S, ..., end/S. With 1 this is a
            consistency model, with many a diffusion model.
        intervals: Intervals of one segment, `curricula.multistep_intervals`; may be traced. With 1 this is denoising.
        teacher: Denoiser in distillation, guided or not; by default the data itself, which is training.
        unguided: The teacher without guidance, from which aDDIM estimates its variance; the teacher by default.
        eta: aDDIM's share of the teacher's squared error that is put back as noise; 0 is DDIM.
        distance: Pseudo-Huber with c = 1e-4, 1 for text-to-image.
        weight: SNR + 1, a loss on v.
        path: Variance preserving in the paper; its sigma must be positive for t > 0.
        end: Time of pure noise on that path.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t` and `distance` (the loss without its weight).

    Raises:
        ValueError: unless segments >= 1 and end > 0.
    """
    if segments < 1 or not end > 0:
        raise ValueError(f"segment_consistency needs segments >= 1 and end > 0, got segments={segments}, end={end}")
    key_segment, key_interval, key_z = jax.random.split(key, 3)
    x, z = coupling(key_z, at_least_float32(x))
    n = len(x)
    segment = jax.random.randint(key_segment, (n,), 0, segments)
    interval = jax.random.randint(key_interval, (n,), 1, intervals + 1)
    last = interval == 1  # s is the segment's end, where no network is asked
    level = segment * intervals + interval
    t, s, edge = (end * level / (segments * intervals) for level in (level, level - 1, segment * intervals))

    x_t = interpolate(path, x, z, t)
    x_teacher = x if teacher is None else at_least_float32(teacher(x_t, t))
    x_unguided = x_teacher if unguided is None else at_least_float32(unguided(x_t, t))
    variance = eta * l2(x_unguided, x) / x[0].size
    x_s, extra_noise = addim(path, x_t, x_teacher, variance, t, s)
    x_student = net(x_s, jnp.where(last, t, s))

    # With rho = alpha / sigma, DDIM keeps z in x / sigma = rho x + z: the three predictions are weighted by differences
    # of rho. Multiplied by sigma at the edge, which may be 0.
    (alpha_t, sigma_t), (alpha_s, sigma_s), (alpha_e, sigma_e) = (
        (path.alpha(r), path.sigma(r)) for r in (t, jnp.where(last, t, s), edge)
    )
    whole = alpha_e - sigma_e * alpha_t / sigma_t
    share = expand(jnp.where(last, 0.0, (alpha_e - sigma_e * alpha_s / sigma_s) / whole), x)
    extra_share = expand(jnp.where(last, 1.0, sigma_e / sigma_s) / whole, x)
    goal = jax.lax.stop_gradient(share * x_student + (1 - share) * x_teacher + extra_share * extra_noise)

    difference = distance(net(x_t, t), goal)
    return weight(t) * difference, {"t": t, "distance": difference}


def addim(path: Path, x_t: Batch, prediction: Batch, variance: Array, t: Array, s: Array) -> tuple[Batch, Batch]:
    """(x_s, the part of it beyond DDIM): DDIM with the noise that its mean prediction lacks (Heek et al. 2024).

    `variance` [B] is the mean square per element of the data about the prediction, given x_t.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        expand(c, x_t) for c in (path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s))
    )
    noise = (x_t - alpha_t * prediction) / sigma_t
    z_variance = (alpha_s - alpha_t * sigma_s / sigma_t) ** 2 * expand(variance, x_t)
    mean_square = expand(jnp.maximum(l2(noise, jnp.zeros_like(noise)), 1e-12), x_t) / noise[0].size
    # sqrt(sigma_s^2 + y) - sigma_s without cancellation, and without 0/0 at sigma_s = y = 0.
    y = z_variance / mean_square
    extra = y / jnp.maximum(jnp.sqrt(sigma_s**2 + y) + sigma_s, 1e-12) * noise
    return alpha_s * prediction + sigma_s * noise + extra, extra
