"""Post-hoc choice of an averaging length: power-function averages recombined after training.

A power-function average at time t weighs the parameters of time tau by (tau/t)^gamma (gamma + 1)/t. Snapshots of two
such averages at several times span a space in which the profile of any other length is found by least squares
(Karras et al. 2024, section 3 and appendix C). Times are in any unit, e.g. steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LARGEST_SIGMA_REL = 12**-0.5  # gamma = 0: the plain mean over the whole training


class Profile(NamedTuple):
    """Averaging profile: a power-function average of exponent gamma, taken at a time."""

    time: float
    gamma: float


def gamma_of(sigma_rel: float) -> float:
    """Exponent gamma of a relative length s, the standard deviation of the profile over the time it is taken at.

    s^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (eq. 125), so the largest root of
    x^3 + 7x^2 + (16 - 1/s^2) x + 12 - 1/s^2. sigma_rel 0.05 and 0.10 give 16.97 and 6.94 (Karras et al. 2024, eq. 126).

    Raises:
        ValueError: if sigma_rel is outside (0, 0.2887), the length of a plain mean.
    """
    if not 0 < sigma_rel < LARGEST_SIGMA_REL:
        raise ValueError(f"sigma_rel must lie in (0, {LARGEST_SIGMA_REL:.4f}), got {sigma_rel}")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def inner_product(a: Profile, b: Profile) -> float:
    """Integral over [0, min(t_a, t_b)] of the product of two profiles, in closed form (eq. 160)."""
    ratio = (a.time / b.time) ** b.gamma if a.time < b.time else (b.time / a.time) ** a.gamma
    return (a.gamma + 1) * (b.gamma + 1) * ratio / ((a.gamma + b.gamma + 1) * max(a.time, b.time))


def mixing_weights(snapshots: Sequence[Profile], target: Profile) -> Float[np.ndarray, " snapshots"]:
    """Weights, summing to 1, with which the snapshots' parameters add up to the target profile's (algorithm 3).

    Raises:
        ValueError: without snapshots, or with a time that is not positive.
    """
    if not snapshots:
        raise ValueError("post-hoc reconstruction needs at least one snapshot")
    if not all(profile.time > 0 for profile in (*snapshots, target)):
        raise ValueError(f"times of averaging profiles are positive, got {[p.time for p in (*snapshots, target)]}")
    gram = np.array([[inner_product(a, b) for b in snapshots] for a in snapshots])
    projection = np.array([inner_product(a, target) for a in snapshots])
    # Neighbouring snapshots are nearly parallel; least squares stays finite where a plain solve would not.
    weights = np.linalg.lstsq(gram, projection, rcond=1e-14)[0]
    return weights / weights.sum()
