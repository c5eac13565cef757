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


def latent_consistency(n: int, *, solver_steps: int = 50, steps: int = 1000) -> np.ndarray:
    """n of the teacher's timesteps, from the noisiest on: LCM's and TCD's grid, 999, 759, 499, 259 for n = 4.

    Entries floor(i solver_steps / n) of steps - 1, ..., 2k - 1, k - 1 with k = steps / solver_steps, the timesteps of
    the solver that was distilled. Sampling ends at timestep 0 (diffusers' LCMScheduler).

    Raises:
        ValueError: unless 1 <= n <= solver_steps, and solver_steps divides steps and is less.
    """
    if not 1 <= solver_steps < steps or steps % solver_steps:
        raise ValueError(f"solver_steps must divide {steps} and be less, got {solver_steps}")
    if not 1 <= n <= solver_steps:
        raise ValueError(f"a grid of {solver_steps} solver steps has 1 to {solver_steps} sampling steps, got {n}")
    index = np.arange(n) * solver_steps // n
    return check_times(steps - 1 - index * (steps // solver_steps))


def phased(phases: int, *, steps: int = 1000) -> np.ndarray:
    """Timesteps where the phases of a PCM begin, of which the last ends at 0: 999, 749, 499, 249 for four.

    They are the edges that `triples.pcm` of losses trains, whatever the number of solver steps, and the only times at
    which such a model should be called.

    Raises:
        ValueError: unless phases >= 1 divides steps and is less.
    """
    if not 1 <= phases < steps or steps % phases:
        raise ValueError(f"phases must divide {steps} and be less, got {phases}")
    return check_times(steps // phases * np.arange(phases, 0, -1) - 1)


def explicit(*times: float) -> np.ndarray:
    """The times as given, checked: explicit(80, 0.821) is iCT's two-step grid on CIFAR-10.

    Raises:
        ValueError: if there is none, or they do not fall strictly, or one is not positive and finite.
    """
    return check_times(times)


def _check_steps(n: int) -> None:
    if n < 1:
        raise ValueError(f"a sampler takes at least 1 step, got {n}")
