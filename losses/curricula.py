"""Curricula: numbers that change while a consistency model trains, as functions of a traced step or stage.

Stages are exact integer arithmetic, so that no boundary moves by a step through rounding, and all trace to one
program: a run compiles once, whatever its curriculum.
"""

import jax.numpy as jnp
import numpy as np

from ._shapes import Array, Int
from .pairs import karras_time

Step = Int[Array, ""]


def ct_points(step: Step, *, steps: int, s0: int = 2, s1: int = 150) -> Step:
    """Grid points N(k) = ceil(sqrt(k/K ((s1+1)^2 - s0^2) + s0^2) - 1) + 1 (Song et al. 2023, appendix C).

    Grows from s0 at k = 0 to s1 + 1 at k = K = steps.

    Raises:
        ValueError: unless steps >= 1 and 2 <= s0 <= s1.
    """
    if steps < 1 or not 2 <= s0 <= s1:
        raise ValueError(f"ct_points needs steps >= 1 and 2 <= s0 <= s1, got steps={steps}, s0={s0}, s1={s1}")
    # N(k) > m exactly when k > K (m^2 - s0^2) / ((s1+1)^2 - s0^2): integers, where a float32 root would flip N.
    m = np.arange(s0, s1 + 1, dtype=object)
    first_steps = steps * (m**2 - s0**2) // ((s1 + 1) ** 2 - s0**2) + 1
    return s0 + jnp.searchsorted(jnp.asarray(first_steps.astype(np.int32)), step, side="right").astype(jnp.int32)


def ct_target_decay(points: Step, *, s0: int = 2, mu0: float = 0.9) -> Array:
    """Decay mu(k) = exp(s0 ln mu0 / (N(k) - 1)) of CT's target average, float32 in (0, 1).

    The paper's formula divides by N(k); this is the official code's, which the published runs used.

    Raises:
        ValueError: unless 0 < mu0 < 1 and s0 >= 1.
    """
    if not (0 < mu0 < 1 and s0 >= 1):
        raise ValueError(f"ct_target_decay needs 0 < mu0 < 1 and s0 >= 1, got {mu0=}, {s0=}")
    return jnp.exp(s0 * np.log(mu0) / (points - 1)).astype(jnp.float32)


def ict_points(step: Step, *, steps: int, s0: int = 10, s1: int = 1280) -> Step:
    """Grid points N(k) = min(s0 2^floor(k/K'), s1) + 1, doubling every K' steps (Song & Dhariwal 2023, eq. 11).

    K' = floor(K / (log2 floor(s1/s0) + 1)): 11, 21, 41, ..., 1281 for the defaults, each for K/8 steps.

    Raises:
        ValueError: unless 1 <= s0 <= s1 and steps gives every stage at least one step.
    """
    if not 1 <= s0 <= s1:
        raise ValueError(f"ict_points needs 1 <= s0 <= s1, got s0={s0}, s1={s1}")
    stage_steps = int(steps // (np.log2(s1 // s0) + 1))
    if stage_steps < 1:
        raise ValueError(f"{steps} steps are too few for {int(np.log2(s1 // s0)) + 1} stages")
    stage = jnp.minimum(step // stage_steps, (s1 // s0).bit_length())
    return jnp.minimum(s0 << stage, s1) + 1


def cauchy_scale(points: Step, *, elements: int, s0: int = 10) -> Array:
    """c of the Cauchy distance for `ict_points` N: sqrt(d) exp(-1.15 ln(N - 1) - 0.85) (Dao et al. 2025).

    In the first stage, of s0 intervals, it is 0.03456 sqrt(d): 0.00054 sqrt(4096) for the paper's latents of 4,096
    elements, near the 0.0303 of the rule. The paper's c lacks the factor sqrt(d): its distance has the mean over the d
    elements of an example where `cauchy` has the sum. The paper writes iCT's 0.00054 sqrt(d), made for a sum, for the
    first stage of its mean; of other sizes than its own that is no scale of a difference per element, and with 64
    elements, 0.0043, below that of the second stage.

    Returns:
        Scalar, float32, in units of the norm of a whole example.

    Raises:
        ValueError: unless elements >= 1.
    """
    if elements < 1:
        raise ValueError(f"cauchy_scale needs elements >= 1, got {elements}")
    later = jnp.exp(-1.15 * jnp.log(points - 1.0) - 0.85)
    first = 0.00054 * np.sqrt(4096)
    return (np.sqrt(elements) * jnp.where(points == s0 + 1, first, later)).astype(jnp.float32)


def small_noise(points: Step, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    """Noise level under which iLCT has a diffusion loss too: the quietest quarter of the grid (Dao et al. 2025).

    Of the N levels, numbered from 0 at sigma_max, these pairs have a t of number floor(3 N / 4) or more.
    The bound lies half a grid step above the noisiest of them, so that no rounding moves a pair across it.
    """
    noisiest = points - 1 - 3 * points // 4
    return karras_time(noisiest + 0.5, points, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)


def multistep_intervals(step: Step, *, segments: int, ramp_steps: int, first: int = 64, last: int = 1280) -> Step:
    """Intervals of one segment, round(N / segments) and at least 1, for a growing N (Heek et al. 2024).

    N = first (last/first)^min(k / ramp_steps, 1).

    Raises:
        ValueError: unless segments >= 1, ramp_steps >= 1 and 1 <= first < last.
    """
    if segments < 1 or ramp_steps < 1 or not 1 <= first < last:
        raise ValueError(
            f"multistep_intervals needs segments >= 1, ramp_steps >= 1 and 1 <= first < last, "
            f"got segments={segments}, ramp_steps={ramp_steps}, first={first}, last={last}"
        )
    fewest, most = max(round(first / segments), 1), max(round(last / segments), 1)
    # The step at which N / segments passes n - 1/2, in float64 on the host, so that all hosts agree on it.
    thresholds = (np.arange(fewest + 1, most + 1) - 0.5) * segments
    first_steps = np.ceil(ramp_steps * np.log(thresholds / first) / np.log(last / first)).astype(np.int32)
    return fewest + jnp.searchsorted(jnp.asarray(first_steps), step, side="right").astype(jnp.int32)


def tangent_warmup(step: Step, *, steps: int) -> Array:
    """r = min(1, k / steps), the share of the network's own derivative in sCM's tangent (Lu & Song 2024, alg. 1).

    Raises:
        ValueError: unless steps >= 1.
    """
    if steps < 1:
        raise ValueError(f"tangent_warmup needs steps >= 1, got {steps}")
    return jnp.minimum(step / steps, 1.0).astype(jnp.float32)


def ect_stage(step: Step, *, stage_steps: int, last: int) -> Step:
    """Stage floor(k / stage_steps) of ECT's shrinking hop, held at `last` (Geng et al. 2024, section 3.2).

    Raises:
        ValueError: unless stage_steps >= 1 and last >= 0.
    """
    if stage_steps < 1 or last < 0:
        raise ValueError(f"ect_stage needs stage_steps >= 1 and last >= 0, got {stage_steps} and {last}")
    return jnp.minimum(step // stage_steps, last)
