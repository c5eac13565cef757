"""Time grids: descending float64 arrays of the times at which a sampler calls the network. The end, 0, is not one."""

import numpy as np

from .types import check_times


def karras(n: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """n noise levels from sigma_max to sigma_min, equally spaced in sigma^(1/rho) (Karras et al. 2022, eq. 5).

    One level is sigma_max.

    Raises:
        ValueError: unless n >= 1 and 0 < sigma_min < sigma_max and rho > 0.
    """
    _check_steps(n)
    if not 0 < sigma_min < sigma_max < np.inf or not rho > 0:
        raise ValueError(f"karras needs 0 < sigma_min < sigma_max and rho > 0, got {sigma_min=}, {sigma_max=}, {rho=}")
    ramp = np.linspace(0, 1, n)
    return (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def linear(n: int, *, start: float = 1.0) -> np.ndarray:
    """n equal steps from start to 0: start, start (n-1)/n, ..., start/n. For paths on [0, 1].

    Raises:
        ValueError: unless n >= 1 and 0 < start < inf.
    """
    _check_steps(n)
    if not 0 < start < np.inf:
        raise ValueError(f"linear needs 0 < start < inf, got {start=}")
    return check_times(start * np.arange(n, 0, -1) / n)


def trig(n: int, *, sigma_max: float = 80.0, sigma_data: float = 0.5) -> np.ndarray:
    """n equal angles from arctan(sigma_max / sigma_data) to 0, for TrigFlow's time in [0, pi/2] (Lu & Song 2024).

    Raises:
        ValueError: unless n >= 1 and both sigmas are positive.
    """
    if not (sigma_max > 0 and sigma_data > 0):
        raise ValueError(f"trig needs positive sigmas, got {sigma_max=}, {sigma_data=}")
    return linear(n, start=float(np.arctan2(sigma_max, sigma_data)))


def explicit(*times: float) -> np.ndarray:
    """The times as given, checked: explicit(80, 0.821) is iCT's two-step grid on CIFAR-10.

    Raises:
        ValueError: if there is none, or they do not fall strictly, or one is not positive and finite.
    """
    return check_times(times)


def _check_steps(n: int) -> None:
    if n < 1:
        raise ValueError(f"a sampler takes at least 1 step, got {n}")
