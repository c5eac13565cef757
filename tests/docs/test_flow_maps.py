"""docs/flow_maps.md: each identity at the exact flow map of Gaussian data on the straight path, in both precisions."""

import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import continuous_consistency, linear, pairs, paths, trajectory_consistency, triples
from losses.flow_map_matching import eulerian, lagrangian, semigroup
from losses.paths import expand, interpolate, velocity
from tests.losses.quadrature import posterior_signs
from tests.oracles import Gaussian, constant_times, gaussian_average_velocity, gaussian_velocity

PAGE = Path(__file__).parents[2] / "docs" / "flow_maps.md"
DATA = Gaussian(0.3, 0.7)
TIMES = np.asarray([(0.9, 0.5, 0.2), (0.7, 0.65, 0.6), (1.0, 0.4, 0.0), (0.3, 0.1, 0.05), (0.5, 0.5, 0.25)])
X = np.asarray([[-1.3, 0.4], [0.2, -0.7], [0.9, 1.2], [0.3, 0.1], [-0.6, 0.8]])

u = partial(gaussian_average_velocity, DATA)
b = partial(gaussian_velocity, DATA, linear)


def flow_map(x, t, s):
    return x - expand(t - s, x) * u(x, t, s)


def wrong(x, t, s):
    """Half the way."""
    return x - expand(t - s, x) * u(x, t, s) / 2


def sides(X_of):
    """Both sides of every identity: of the exact map, or of a wrong one."""
    x, (t, q, s) = jnp.asarray(X), jnp.asarray(TIMES).T
    one, v = jnp.ones_like(t), b(x, t)
    x_s, rate = jax.jvp(lambda s: X_of(x, t, s), (s,), (one,))
    drift = jax.jvp(lambda x, t: X_of(x, t, s), (x, t), (v, one))[1]
    x_q = flow_map(x, t, q)
    return {
        "no change": (X_of(x, t, t), x),
        "diagonal": (jax.jvp(lambda s: X_of(x, t, s), (t,), (one,))[1], v),
        "semigroup": (X_of(X_of(x, t, q), q, s), x_s),
        "lagrangian": (rate, b(x_s, s)),
        "eulerian": (drift, jnp.zeros_like(drift)),
        "eulerian discrete": (X_of(x_q, q, s), x_s),
    }


def sides_in_u():
    """The same in the mean velocity."""
    x, (t, q, s) = jnp.asarray(X), jnp.asarray(TIMES).T
    gap, one, v = expand(t - s, x), jnp.ones_like(t), b(x, t)
    u_t = u(x, t, s)
    by_s = jax.jvp(lambda s: u(x, t, s), (s,), (one,))[1]
    along = jax.jvp(lambda x, t: u(x, t, s), (x, t), (v, one))[1]
    parts = expand(t - q, x) * u(x, t, q) + expand(q - s, x) * u(flow_map(x, t, q), q, s)
    return {
        "no change": (x - expand(t - t, x) * u(x, t, t), x),
        "diagonal": (u(x, t, t), v),
        "semigroup": (gap * u_t, parts),
        "lagrangian": (u_t - gap * by_s, b(flow_map(x, t, s), s)),
        "eulerian": (u_t, v - gap * along),
    }


@cache
def evaluated(bits: int) -> tuple[dict, dict, dict]:
    """The sides for the exact map, in u, and for a wrong map; one program."""
    with jax.enable_x64(bits == 64):
        return jax.jit(lambda: (sides(flow_map), sides_in_u(), sides(wrong)))()


@pytest.fixture(params=[32, 64])
def bits(request):
    with jax.enable_x64(request.param == 64):
        yield request.param


def equal(got, expected, bits):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 if bits == 64 else 1e-6)


def holds(name, bits):
    exact, in_u, beside = evaluated(bits)
    for case in (exact, in_u):
        if name in case:
            assert case[name][0].dtype == jnp.dtype(f"float{bits}")
            equal(case[name][0], case[name][1], bits)
    if name != "no change":  # which is true of the wrong map too
        assert jnp.abs(beside[name][0] - beside[name][1]).max() > 1e-2


# ---- Identities ------------------------------------------------------------------------------------------------------


def test_no_change(bits):
    holds("no change", bits)


def test_diagonal(bits):
    holds("diagonal", bits)


def test_semigroup(bits):
    holds("semigroup", bits)


def test_lagrangian(bits):
    holds("lagrangian", bits)


def test_eulerian(bits):
    holds("eulerian", bits)


def test_eulerian_discrete(bits):
    holds("eulerian discrete", bits)


def test_law(bits):
    """Mean and standard deviation of the two ends, both affine in a standard normal; not so for a wrong map."""
    unit = jnp.asarray([[0.0], [1.0]])

    def end(X_of, t, s):
        x_t = (1 - t) * DATA.mean + np.hypot((1 - t) * DATA.std, t) * unit
        return X_of(x_t, jnp.full(2, t), jnp.full(2, s))

    equal(end(flow_map, 0.8, 0.3), end(flow_map, 0.6, 0.3), bits)
    assert jnp.abs(end(wrong, 0.8, 0.3) - end(wrong, 0.6, 0.3)).max() > 1e-2


# ---- Consequences ----------------------------------------------------------------------------------------------------


def any_u(x, t, s):
    return jnp.sin(2 * x + expand(t - 3 * s, x))


def along(u, x, t, s, v):
    """dX/dt + grad X v, of X and written in u."""
    X_of = lambda x, t: x - expand(t - s, x) * u(x, t, s)
    one = jnp.ones_like(t)
    in_u = v - u(x, t, s) - expand(t - s, x) * jax.jvp(lambda x, t: u(x, t, s), (x, t), (v, one))[1]
    return jax.jvp(X_of, (x, t), (v, one))[1], in_u


def test_along_any_velocity(bits):
    """For a u and a v that are nothing in particular."""
    x, (t, _, s) = jnp.asarray(X), jnp.asarray(TIMES).T
    in_X, in_u = jax.jit(along, static_argnums=0)(any_u, x, t, s, jnp.cos(3 * x))
    equal(in_X, in_u, bits)


def test_mean_over_pairs(bits):
    """Over the two nodes of the posterior, whose velocities differ from b by the same in both directions."""
    x_t, t = jnp.asarray([-0.5, 0.8]), 0.6
    nodes = posterior_signs(DATA, linear, x_t, t)
    times, s = jnp.full(4, t), jnp.full(4, 0.2)
    state = interpolate(linear, nodes.x, nodes.z, times)
    of_pairs, _ = along(any_u, state, times, s, velocity(linear, nodes.x, nodes.z, times))
    of_b, _ = along(any_u, state, times, s, b(state, times))
    assert jnp.abs(of_pairs - of_b).min() > 1e-2
    equal((of_pairs[::2] + of_pairs[1::2]) / 2, of_b[::2], bits)


def test_mean_flow_at_zero_is_scm(bits):
    """At one point the derivative of f along v is one and the same, but for dt/d angle.

    With c = cos + sin of the angle, t = sin / c and TrigFlow's state is y = c x_t; f ends at the same data.
    """
    angle, trigflow = 0.6, paths.scaled(paths.trig, 1.0)
    x = jnp.asarray([[0.4], [-0.3], [1.1]])
    seen = []

    def F(y, angle):
        """F(y) of the consistency function f = x_t - t u(x_t, t, 0) read on TrigFlow's path."""
        cos, sin = (expand(c(angle), y) for c in (jnp.cos, jnp.sin))
        t = jnp.sin(angle) / (jnp.cos(angle) + jnp.sin(angle))
        x_t = y / (cos + sin)
        f = x_t - expand(t, y) * any_u(x_t, t, jnp.zeros_like(t))
        return (cos * y - f) / sin

    def tangent(g):
        seen.append(g)
        return g

    key = jax.random.key(0)
    z = jax.random.normal(jax.random.split(key)[1], x.shape)
    continuous_consistency(
        F, x, key, times=constant_times(angle), tangent=tangent, sigma_data=1.0, coupling=lambda key, x: (x, z)
    )
    y = interpolate(trigflow, x, z, jnp.full(3, angle))
    c = np.cos(angle) + np.sin(angle)
    t = jnp.full(3, np.sin(angle) / c)
    residual, _ = along(any_u, y / c, t, jnp.zeros(3), z - x)
    # sCM's g is cos df/d angle, and dt/d angle = 1 / c^2.
    equal(seen[0], np.cos(angle) * residual / c**2, bits)


def test_residuals_vanish(bits):
    """The functions of losses that the page names, at the exact map and at a wrong one."""
    x, key = jnp.asarray(X), jax.random.key(0)
    grid = np.asarray([0.0, 0.3, 0.6, 1.0])

    def discrete(u, x, key):
        step = lambda path, x, z, t, q: flow_map(interpolate(path, x, z, t), t, q)
        X_of = lambda x, t, s: x - expand(t - s, x) * u(x, t, s)
        return trajectory_consistency(X_of, x, key, triples=partial(triples.tcd, grid=grid), step=step, path=linear)

    residuals = (
        partial(lagrangian, pairs=pairs.ordered, velocity=b),
        partial(eulerian, pairs=pairs.ordered, velocity=b),
        partial(semigroup, triples=partial(triples.split, pairs=pairs.ordered)),
        discrete,
    )
    bent = lambda x, t, s: u(x, t, s) + expand(t - s, x) * jnp.sin(3 * x)
    losses = jax.jit(lambda: [(r(u, x, key)[0].max(), r(bent, x, key)[0].max()) for r in residuals])()
    for exact, beside in losses:
        assert exact < (1e-24 if bits == 64 else 1e-11)
        assert beside > 1e-4


def test_the_page_names_the_tests_of_this_file():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    ours = {name for name in globals() if name.startswith("test_")} - {"test_the_page_names_the_tests_of_this_file"}
    assert named == ours
