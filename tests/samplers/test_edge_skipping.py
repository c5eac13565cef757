from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import ddim, edge_skipping, grids
from tests.oracles import PATHS, Gaussian, gaussian_denoiser, gaussian_flow_map

X = np.linspace(-2, 2, 5).reshape(5, 1)
DATA = Gaussian(0.0, 0.7)


def edges(name):
    return PATHS[name].high * np.asarray([0.98, 0.5, 0.2, 0.05])


def angle(path, t):
    return float(jnp.arctan2(path.sigma(jnp.asarray(t)), path.alpha(jnp.asarray(t)) * DATA.std))


def phased(path, edges, x_t, t):
    """The exact phased model: the data prediction with which DDIM follows the flow from t to the end of its segment."""
    below = jnp.asarray([*edges[1:], 0.0])
    end = jnp.max(jnp.where(below < t[:, None] * (1 - 1e-9), below, 0.0), axis=1)[:, None]
    t = t[:, None]
    ratio = path.sigma(end) / path.sigma(t)
    x_end = gaussian_flow_map(DATA, path, x_t, t, end)
    return (x_end - ratio * x_t) / (path.alpha(end) - ratio * path.alpha(t))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_without_skipping_it_is_ddim(name):
    path = PATHS[name].path
    net = partial(gaussian_denoiser, Gaussian(), path)
    got = edge_skipping(net, jnp.asarray(X), edges(name), path=path, skip=1.0)
    np.testing.assert_array_equal(got, ddim(net, jnp.asarray(X), edges(name), path=path))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("skip", [1.0, 0.9, 0.5])
def test_exact_on_point_data(name, skip):
    """There data and noise stay what they were predicted to be, past every edge; each state on the way is checked."""
    path, times, z = PATHS[name].path, edges(name), jnp.asarray(X)
    seen = []

    def state(t):
        return path.alpha(jnp.asarray(t)) * 0.3 + path.sigma(jnp.asarray(t)) * z

    def net(x, t):
        seen.append((float(t[0]), x))
        return jnp.full_like(x, 0.3)

    with jax.disable_jit():
        got = edge_skipping(net, state(times[0]), times, path=path, skip=skip)
    np.testing.assert_allclose([t for t, _ in seen], [times[0], *skip * times[1:]], rtol=1e-15)
    for t, x in seen:
        np.testing.assert_allclose(x, state(t), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(got, 0.3, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_a_denoiser_shrinks_by_the_cosines_between_its_calls(name):
    path, times = PATHS[name].path, edges(name)
    called = [times[0], *0.8 * times[1:], 0.0]
    got = edge_skipping(partial(gaussian_denoiser, DATA, path), jnp.asarray(X), times, path=path, skip=0.8)
    exact = gaussian_flow_map(DATA, path, jnp.asarray(X), times[0], 0.0)
    factor = np.prod([np.cos(angle(path, t) - angle(path, s)) for t, s in pairwise(called)])
    np.testing.assert_allclose(got, exact * factor, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("skip", [1.0, 0.95, 0.7])
def test_an_exact_phased_model_pays_for_each_edge_it_passes(name, skip):
    """From angle t towards the edge r, on to q: cos((t + r)/2 - q) / cos((t - r)/2), which is 1 for q = r."""
    path, times = PATHS[name].path, edges(name)
    got = edge_skipping(partial(phased, path, times), jnp.asarray(X), times, path=path, skip=skip)
    factor, t = 1.0, angle(path, times[0])
    for edge in times[1:]:
        r, q = angle(path, edge), angle(path, skip * edge)
        factor *= np.cos((t + r) / 2 - q) / np.cos((t - r) / 2)
        t = q
    exact = gaussian_flow_map(DATA, path, jnp.asarray(X), times[0], 0.0)
    np.testing.assert_allclose(got, exact * factor, rtol=1e-9)
    assert np.isclose(factor, 1, rtol=1e-12) == (skip == 1)


def never(x, t):
    raise AssertionError("the network was called")


@pytest.mark.parametrize("skip", [0.0, -0.5, 1.1, float("nan")])
def test_bad_skip(skip):
    with pytest.raises(ValueError, match=rf"skip must lie in \(0, 1\], got {skip}"):
        edge_skipping(never, jnp.ones((2, 3)), [1.0, 0.5], path=PATHS["cosine"].path, skip=skip)


@pytest.mark.parametrize(("skip", "allowed"), [(0.49, False), (0.5, False), (0.51, True)])
def test_no_segment_is_left_out(skip, allowed):
    """At skip = 1/2 the first edge of three equal segments, 2/3, would become the second, 1/3."""
    run = partial(edge_skipping, lambda x, t: x, jnp.ones((2, 3)), grids.linear(3), path=PATHS["cosine"].path)
    if allowed:
        assert run(skip=skip).shape == (2, 3)
    else:
        with pytest.raises(ValueError, match=f"must enter every segment, got {skip}, which passes a whole one"):
            run(skip=skip)


def test_bad_times():
    with pytest.raises(ValueError, match=r"must fall from noise to data, strictly, got \[0.5 0.9\]"):
        edge_skipping(never, jnp.ones((2, 3)), [0.5, 0.9], path=PATHS["cosine"].path, skip=0.9)


def test_one_time_has_no_edge_to_skip():
    path = PATHS["linear"].path
    net = partial(gaussian_denoiser, Gaussian(), path)
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_array_equal(edge_skipping(net, x, [0.9], path=path, skip=0.3), ddim(net, x, [0.9], path=path))
