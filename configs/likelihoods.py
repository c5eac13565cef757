"""Likelihoods of images under the ODE of a trained run. Not a run; `eval.likelihood` loads this file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import data
import train
from configs import odes
from samplers import sample_keys
from samplers.likelihood import bits_per_dimension, log_likelihood

LEVELS = 256


class Likelihood(NamedTuple):
    """Bits of images under a run.

    Attributes:
        bits: (images uint8 [B, H, W, C], labels [B] or None, indices [B]) -> bits per dimension [B]. Those of image i
            depend on it, the seed and i alone.
        shape: of the images.
        num_classes: 0 if it is unconditional; labels are needed otherwise.
        facts: for a row.
    """

    bits: Callable[[np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    num_classes: int
    facts: dict[str, Any]


def likelihood(
    workdir: str | Path,
    *,
    average: str | None = None,
    step: int | None = None,
    solver_steps: int = 64,
    estimated: bool = True,
    seed: int = 0,
) -> Likelihood:
    """The likelihood of a run with a `flow(config)`, a `diffusion(config)` or a `trajectory(config)`.

    A grey level has uniform noise of its own width added, 2 / 255 where levels are x / 127.5 - 1, so that the bits
    bound those of a code for the levels from above. The state starts at the ODE's `end`.

    Args:
        workdir: of the run.
        average: which weights; those that its config names if None.
        step: which checkpoint; the newest if None.
        solver_steps: Heun steps, two velocities with derivatives each.
        estimated: by one vector of signs for each image, without which a derivative for each pixel is taken.
        seed: of noise and signs.

    Raises:
        FileNotFoundError: there is no such run or checkpoint.
        ValueError: the run has no ODE, or its examples are no images.
    """
    ode = odes.read(workdir)
    if len(ode.shape) != 3 or ode.shape[-1] not in (1, 3):
        raise ValueError(f"the run in {workdir} is of examples {ode.shape}; likelihoods are of grey or coloured images")
    trained, step = train.restore_average(workdir, average or ode.average, step)
    params = ode.network(trained)
    times = ode.times(solver_steps)

    @jax.jit
    def bits(params: train.Params, x: jax.Array, labels: jax.Array | None, indices: jax.Array) -> jax.Array:
        keys = sample_keys(seed, indices)
        shift = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], minval=-0.5, maxval=0.5))(keys)
        x = data.to_model_range(x) + shift * (2 / (LEVELS - 1))
        velocity = ode.velocity(params, labels if ode.num_classes else None)
        found = log_likelihood(velocity, x, times, keys if estimated else None, path=ode.path, end=ode.end)
        # 256 levels at x / 127.5 - 1 are 2 / 255 apart, as 255 would be in this function's convention.
        return bits_per_dimension(found, elements=x[0].size, levels=LEVELS - 1)

    return Likelihood(
        bits=lambda images, labels, indices: np.asarray(bits(params, images, labels, indices)),
        shape=tuple(ode.shape),
        num_classes=ode.num_classes,
        facts={
            "nfe": 2 * solver_steps,
            "step": step,
            "seed": seed,
            "sampler": f"heun {solver_steps}, {'estimated' if estimated else 'exact'} divergence",
            "average": average or ode.average,
            "end": ode.end,
            "dequantisation": "uniform",
        },
    )
