import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import pairs, triples
from samplers import grids

N = 40_000
KARRAS = pairs.karras_grid(40)
DDIM = pairs.ddim_grid(40)


def indices(grid: np.ndarray, *times: jax.Array) -> list[np.ndarray]:
    """Entries of a grid; that they are entries is asserted."""
    found = [np.abs(np.asarray(t)[:, None] - grid).argmin(axis=1) for t in times]
    for t, i in zip(times, found, strict=True):
        np.testing.assert_allclose(t, grid[i], rtol=1e-6)
    return found


def assert_shares(values: np.ndarray, expected: np.ndarray) -> None:
    """Frequencies of 0, 1, ... are the expected ones, to 4.5 standard errors."""
    shares = np.bincount(values, minlength=len(expected)) / len(values)
    np.testing.assert_array_less(np.abs(shares - expected), 4.5 * np.sqrt(expected / len(values)) + 1e-12)


def test_ctm_takes_one_number_of_substeps_for_a_batch_and_large_ones_often():
    """P(h) = h / (H (H + 1) / 2), its mean (2 H + 1) / 3."""
    law = jax.jit(jax.vmap(lambda key: jnp.stack(triples.ctm(key, 4, grid=KARRAS, substeps=39))))
    times = law(jax.random.split(jax.random.key(0), N // 4))
    t, u, s = (i.reshape(-1, 4) for i in indices(KARRAS, *(times[:, k].ravel() for k in range(3))))
    assert (s <= u).all()
    h = t - u
    np.testing.assert_array_equal(h, h[:, :1].repeat(4, axis=1))
    assert_shares(h[:, 0], np.arange(40) / (39 * 40 / 2))
    assert abs(h[:, 0].mean() - 79 / 3) < 4 * h[:, 0].std() / np.sqrt(len(h))
    # Given h, u is uniform on what leaves room; given u, s is uniform down to sigma_min.
    room = 40 - h.ravel()
    assert abs(((u.ravel() + 0.5) / room).mean() - 0.5) < 4 / np.sqrt(12 * N)
    assert abs(((s.ravel() + 0.5) / (u.ravel() + 1)).mean() - 0.5) < 4 / np.sqrt(12 * N)
    assert t.max() == 39
    assert s.min() == 0


@pytest.mark.parametrize("law", [triples.midpoint, triples.split])
def test_a_stop_between_a_pair(law):
    """Half way, or uniform between the two; the pair is the one of its law, where s may be t."""
    ordered = partial(pairs.ordered, to_data=0.25, same=0.25)
    t, u, s = jax.jit(lambda key: law(key, 4096, pairs=ordered))(jax.random.key(0))
    assert (s <= u).all()
    assert (u <= t).all()
    apart = t > s
    if law is triples.midpoint:
        np.testing.assert_allclose(u, (t + s) / 2, rtol=1e-6)
    else:
        share = ((u - s) / (t - s))[apart]
        assert abs(share.mean() - 0.5) < 4 / np.sqrt(12 * len(share))
        assert abs((share**2).mean() - 1 / 3) < 0.03
    assert abs(apart.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 4096)
    assert abs((s == 0).mean() - 0.25) < 4 * np.sqrt(0.75 * 0.25 / 4096)


def test_the_longest_way_starts_at_sigma_max():
    t, u, _ = triples.ctm(jax.random.key(0), 8, grid=pairs.karras_grid(2), substeps=1)
    np.testing.assert_allclose(t, 80, rtol=1e-6)
    np.testing.assert_allclose(u, 0.002, rtol=1e-6)


def test_tcd_ends_anywhere_below_a_neighbour():
    t, u, s = indices(DDIM, *jax.jit(lambda key: triples.tcd(key, N, grid=DDIM))(jax.random.key(0)))
    np.testing.assert_array_equal(t - u, 1)
    assert_shares(u, np.full(40, 1 / 40))
    assert_shares(s, np.asarray([sum(1 / (k + 1) for k in range(j, 40)) / 40 for j in range(40)]))
    assert (s <= u).all()


@pytest.mark.parametrize("phases", [1, 4, 8, 40])
def test_pcm_ends_at_the_edges_its_sampler_visits(phases):
    t, u, s = indices(DDIM, *triples.pcm(jax.random.key(0), 2000, grid=DDIM, phases=phases))
    np.testing.assert_array_equal(t - u, 1)
    size = 40 // phases
    np.testing.assert_array_equal(s, u // size * size)
    assert set(s) == set(range(0, 40, size))
    # Each phase ends where the sampler goes next: the edges without the start, and 0.
    np.testing.assert_array_equal(np.unique(DDIM[s])[::-1], [*grids.phased(phases)[1:], 0])


def test_all_of_a_law_is_one_program_of_float32():
    for law in (
        partial(triples.ctm, grid=KARRAS, substeps=20),
        partial(triples.tcd, grid=DDIM),
        partial(triples.pcm, grid=np.linspace(0, 1, 9), phases=4),
    ):
        for time in jax.eval_shape(lambda key, law=law: law(key, 5), jax.random.key(0)):
            assert time.shape == (5,)
            assert time.dtype == jnp.float32


def test_more_phases_than_the_authors_grid_divides():
    """50 solver steps and 4 phases train 739, 499, 239 where the sampler visits 749, 499, 249."""
    with pytest.raises(ValueError, match="phases must divide the 50 intervals of the grid, got 4"):
        triples.pcm(jax.random.key(0), 4, grid=pairs.ddim_grid(50), phases=4)


LAWS: dict[str, Callable[[Any], Any]] = {
    "ctm": lambda grid: triples.ctm(jax.random.key(0), 4, grid=grid, substeps=1),
    "tcd": lambda grid: triples.tcd(jax.random.key(0), 4, grid=grid),
    "pcm": lambda grid: triples.pcm(jax.random.key(0), 4, grid=grid, phases=1),
    "lcm": lambda grid: pairs.lcm(jax.random.key(0), 4, grid=grid),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(
    "grid", [[1.0], [2.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, math.inf], [0.0, math.nan], [[0.0, 1.0]]]
)
def test_what_is_not_a_grid(name, grid):
    with pytest.raises(ValueError, match="two or more finite times >= 0 that rise strictly"):
        LAWS[name](np.asarray(grid))


@pytest.mark.parametrize("substeps", [0, 40])
def test_substeps_beyond_the_grid(substeps):
    with pytest.raises(ValueError, match=rf"must lie in \[1, 39\] on a grid of 40 points, got {substeps}"):
        triples.ctm(jax.random.key(0), 4, grid=KARRAS, substeps=substeps)


@pytest.mark.parametrize("phases", [0, -2, 3, 80])
def test_phases_that_do_not_divide(phases):
    with pytest.raises(ValueError, match=f"phases must divide the 40 intervals of the grid, got {phases}"):
        triples.pcm(jax.random.key(0), 4, grid=DDIM, phases=phases)
