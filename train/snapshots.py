"""Weights averaged over any length, rebuilt after training from snapshots of power-function averages."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from .checkpoint import steps_in
from .posthoc import Profile, gamma_of, mixing_weights
from .weights import read_average, restore_average

PREFIX = "power:"


def restore_or_reconstruct(
    workdir: Path | str, average: str, step: int | None = None, *, sigma_rels: dict[str, float]
) -> tuple[Any, int]:
    """Like restore_average, and "power:0.075" rebuilds the average of that relative length.

    Args:
        workdir: Folder of the run; its snapshots are in workdir/snapshots.
        average: Name of an average, "params", or "power:" and a sigma_rel in (0, 0.2887).
        step: The step the weights are for; the newest by default. Later snapshots are not looked at.
        sigma_rels: Which averages are power-function averages, and their lengths.

    Raises:
        FileNotFoundError: if there are no snapshots.
        ValueError: for a length that is not a number or out of range.
    """
    if not average.startswith(PREFIX):
        return restore_average(workdir, average, step)
    try:
        target_sigma_rel = float(average.removeprefix(PREFIX))
    except ValueError:
        raise ValueError(f"expected {PREFIX}NUMBER, e.g. {PREFIX}0.075, got {average!r}") from None
    snapshots = Path(workdir) / "snapshots"
    steps = [s for s in steps_in(snapshots) if step is None or s <= step]
    if not steps:
        reach = "" if step is None else f" up to step {step}"
        raise FileNotFoundError(f"no snapshots in {snapshots}{reach}; set snapshot_every to keep some")
    step = max(steps) if step is None else step

    choices = [(s, name) for s in steps for name in sigma_rels]
    profiles = [Profile(time=s, gamma=gamma_of(sigma_rels[name])) for s, name in choices]
    weights = mixing_weights(profiles, Profile(time=step, gamma=gamma_of(target_sigma_rel)))
    total = None
    for (s, name), weight in zip(choices, weights, strict=True):
        # The weights alternate in sign and nearly cancel, so the sum is kept in float64.
        snapshot = read_average(snapshots, name, s)
        term = jax.tree.map(lambda x, weight=weight: np.float64(weight) * np.asarray(x, np.float64), snapshot)
        total = term if total is None else jax.tree.map(np.add, total, term)
    return jax.tree.map(lambda x: jax.numpy.asarray(x, jax.numpy.float32), total), step
