"""Noise that belongs to a sample and not to its place in a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from .types import Array, Batch, Keys


def sample_keys(seed: int, indices: Array | np.ndarray) -> Keys:
    """One key for each sample index: a function of (seed, index) alone, whatever the batch or the device count."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(indices))


def normal(keys: Keys, shape: tuple[int, ...]) -> Batch:
    """Standard normal noise [B, *shape], row i drawn from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def initial(keys: Keys, shape: tuple[int, ...]) -> Batch:
    """Each sample's starting noise [B, *shape], standard normal: its draw number 0; samplers count theirs from 1."""
    return normal(fold_in(keys, 0), shape)


def fold_in(keys: Keys, number: int | Array) -> Keys:
    """Each sample's key for its number-th draw."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def fresh(keys: Keys, number: int | Array, like: Batch) -> Batch:
    """Each sample's number-th noise, shaped like x."""
    return normal(fold_in(keys, number), like.shape[1:]).astype(like.dtype)
