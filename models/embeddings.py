"""Fixed embeddings of time and position. They hold no parameters and are computed in float32.

Sines of large arguments lose their digits in lower precision, so no body dtype reaches this file.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32


def sinusoidal(t: Float[Array, " batch"], features: int, max_period: float = 1e4) -> Float32[Array, "batch features"]:
    """Cosines, then sines, of t at `features / 2` frequencies from 1 down towards `1 / max_period`.

    The form of DiT and SiT, where the lowest frequency is one step short of `1 / max_period`.

    Raises:
        ValueError: `features` is odd.
    """
    _require_multiple(features, 2)
    half = features // 2
    angles = _angles(t, max_period ** -(np.arange(half) / half))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def edm_positional(
    t: Float[Array, " batch"], features: int, max_period: float = 1e4
) -> Float32[Array, "batch features"]:
    """Sines, then cosines, of t at `features / 2` frequencies from 1 down to `1 / max_period` inclusive.

    The form of EDM's DDPM++ after its swap of the halves. Karras et al. 2022.

    Raises:
        ValueError: `features` is odd or less than 4.
    """
    _require_multiple(features, 2)
    if features < 4:
        raise ValueError(f"two frequencies or more are needed to span a range, got features={features}")
    angles = _angles(t, max_period ** -np.linspace(0.0, 1.0, features // 2))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def fourier_frequencies(features: int, scale: float = 16.0) -> tuple[float, ...]:
    """Draw `features / 2` frequencies from N(0, scale^2): the same ones on every call and machine.

    They are constants of an architecture, like a kernel size, and not variables: so no optimizer trains
    or decays them and no average touches them, and a network read from a checkpoint is built with the
    checkpoint's own. Python promises that this stream of uniform numbers never changes; NumPy and JAX
    promise no such thing for their normal draws, and a resumed run must find the same frequencies.

    Raises:
        ValueError: `features` is odd.
    """
    _require_multiple(features, 2)
    uniform, normal = random.Random(0), NormalDist(0.0, scale)
    return tuple(normal.inv_cdf(uniform.random()) for _ in range(features // 2))


def fourier(t: Float[Array, " batch"], frequencies: Sequence[float]) -> Float32[Array, "batch features"]:
    """Sines, then cosines, of `2 pi frequency t`: the Gaussian Fourier features of NCSN++ as EDM orders them."""
    angles = _angles(t, 2 * math.pi * np.asarray(frequencies))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def grid_positions(height: int, width: int, features: int) -> Float32[np.ndarray, "length features"]:
    """Sine-cosine positions of a grid in row-major order, `length = height * width`.

    The first half of the features encodes the column and the second half the row (sines before cosines
    in each): the order of MAE, DiT and SiT.

    Raises:
        ValueError: `features` is not a multiple of 4.
    """
    _require_multiple(features, 4)
    quarter = features // 4
    frequencies = 1e4 ** -(np.arange(quarter) / quarter)
    row, column = np.divmod(np.arange(height * width), width)
    angles = [position[:, None] * frequencies for position in (column, row)]
    halves = [half for angle in angles for half in (np.sin(angle), np.cos(angle))]
    return np.concatenate(halves, axis=1).astype(np.float32)


def _angles(t: Array, frequencies: np.ndarray) -> Array:
    return t.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)


def _require_multiple(features: int, of: int) -> None:
    if features <= 0 or features % of:
        raise ValueError(f"features must be a positive multiple of {of}, got {features}")
