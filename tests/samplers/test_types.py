"""What every sampler says to times it cannot use, before it calls the network."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import (
    addim,
    ddim,
    edge_skipping,
    edit,
    editing,
    edm_stochastic,
    euler,
    flow_map,
    heun,
    multistep_consistency,
    sample_keys,
)
from samplers.types import check_times, intervals
from tests.oracles import PATHS


def never(x, t):
    raise AssertionError("the network was called")


KEYS = sample_keys(0, jnp.arange(2))
MASK = np.asarray([True, False, True])


def inpaint(x, times):
    return edit(never, x, times, KEYS, task=editing.inpainting(MASK), path=PATHS["edm"].path)


SAMPLERS: dict[str, Any] = {
    "addim": partial(addim, never, path=PATHS["edm"].path),
    "edge_skipping": partial(edge_skipping, never, path=PATHS["edm"].path, skip=0.9),
    "edit": inpaint,
    "euler": partial(euler, never),
    "flow_map": partial(flow_map, lambda x, t, s: never(x, t)),
    "heun": partial(heun, never),
    "ddim": partial(ddim, never, path=PATHS["edm"].path),
    "edm_stochastic": partial(edm_stochastic, never, keys=KEYS),
    "multistep_consistency": partial(multistep_consistency, never, keys=KEYS, path=PATHS["edm"].path),
}

BAD = {
    "none": ([], r"at least one time, got shape \(0,\)"),
    "a number": (1.0, r"at least one time, got shape \(\)"),
    "a table": ([[2.0, 1.0]], r"one-dimensional array of at least one time, got shape \(1, 2\)"),
    "ascending": ([0.5, 1.0], r"fall from noise to data, strictly, got \[0.5 1. \]"),
    "repeated": ([1.0, 1.0], r"strictly, got \[1. 1.\]"),
    "not monotone": ([3.0, 1.0, 2.0], r"strictly, got \[3. 1. 2.\]"),
    "the end itself": ([1.0, 0.0], r"above the end 0.0 >= 0, got \[1. 0.\]"),
    "negative": ([1.0, -0.5], r"above the end 0.0 >= 0, got \[ 1.  -0.5\]"),
    "not a number": ([1.0, float("nan")], r"finite, got \[ 1. nan\]"),
    "infinite": ([float("inf"), 1.0], r"finite, got \[inf  1.\]"),
}


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", BAD)
def test_bad_times(sampler, name):
    times, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        SAMPLERS[sampler](x=jnp.ones((2, 3)), times=times)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_traced_times(sampler):
    with pytest.raises(TypeError, match="build the grid outside of jit"):
        jax.jit(lambda times: SAMPLERS[sampler](x=jnp.ones((2, 3)), times=times))(jnp.asarray([1.0, 0.5]))


@pytest.mark.parametrize(
    ("end", "message"), [(1.0, "above the end 1.0"), (-1.0, "above the end -1.0"), (float("nan"), "finite")]
)
def test_bad_end(end, message):
    with pytest.raises(ValueError, match=message):
        check_times([2.0, 1.0], end=end)


@pytest.mark.parametrize("times", [[2.0, 1.0], (2.0, 1.0), np.asarray([2, 1]), jnp.asarray([2.0, 1.0])], ids=type)
def test_lists_and_arrays_of_any_kind(times):
    grid = check_times(times)
    np.testing.assert_array_equal(grid, [2, 1])
    assert grid.dtype == np.float64
    np.testing.assert_array_equal(intervals(times, end=0.5), [[2, 1], [1, 0.5]])
