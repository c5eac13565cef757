"""IMM where both laws are the same set of points: the exact jump has no loss and no gradient, another one has both."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, cosine, imm_weight, inductive_moment_matching, linear, scaled, triples
from losses.inductive_moment_matching import laplace, squared_mmd
from losses.paths import expand, interpolate
from tests.oracles import Gaussian, gaussian_flow_map

DATA, POINTS = Gaussian(0.3, 0.7), 12
PATH = scaled(linear, 0.5)
ETA_INVERSE = {
    "linear": (linear, lambda eta: eta / (1 + eta)),
    "cosine": (cosine, lambda e: 2 / math.pi * jnp.arctan(e)),
}


def circle(key, x):
    """Pairs (x, z) on an ellipse: the x_t are points of a circle seen from the side, which turns as t falls."""
    angle = 2 * math.pi * jnp.arange(POINTS) / POINTS
    return DATA.mean + DATA.std * jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]


def time_after(turns: int, t: float) -> float:
    """The time below t at which the circle, whose angle is arctan(sigma / (alpha std)), lies on itself again."""
    angle = math.atan2(0.5 * t, (1 - t) * DATA.std) - 2 * math.pi * turns / POINTS
    ratio = math.tan(angle) * DATA.std / 0.5
    return ratio / (1 + ratio)


def always(t, r, s):
    return lambda key, n: tuple(jnp.full(n, time) for time in (t, r, s))


def matching(flow_map, law, *, coupling=circle, particles=POINTS, x=None):
    jump = conversions.euler_jump(0.5)
    return inductive_moment_matching(
        flow_map, jnp.zeros((POINTS, 1)) if x is None else x, jax.random.key(0), triples=law, coupling=coupling,
        scale=lambda t, s: jnp.abs(jump.out(t, s)), weight=partial(imm_weight, path=linear), particles=particles,
        path=PATH,
    )  # fmt: skip


@pytest.mark.usefixtures("float64")
def test_exact_jump_of_a_population():
    """x_t and x_r are as sets what the law is here, so both jumps end in one set, though no particle in its own."""
    t, r, s = 0.9, time_after(1, 0.9), 0.2
    assert s < r < t

    @jax.jit
    def run(params):
        def objective(params):
            flow_map = lambda x_t, t, s: (
                gaussian_flow_map(DATA, PATH, x_t, t, s)
                + params[0] * expand(t - s, x_t) * x_t
                + params[1] * expand(t - s, x_t)
            )
            loss, metrics = matching(flow_map, always(t, r, s))
            return loss.mean(), metrics["distance"]

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, _), gradient = run(jnp.zeros(2))
    assert abs(loss) < 1e-14
    np.testing.assert_allclose(gradient, 0, atol=1e-13)
    (loss, distance), gradient = run(jnp.asarray([0.3, 0.2]))
    assert loss > 1e-3
    assert (jnp.abs(gradient) > 1e-3).all()
    np.testing.assert_allclose(loss, imm_weight(jnp.asarray([t]), path=linear)[0] * distance[0], rtol=1e-12)
    # Particle by particle the two ends are not the same.
    x, z = circle(None, None)
    ends = [gaussian_flow_map(DATA, PATH, interpolate(PATH, x, z, jnp.full(POINTS, q)), q, s) for q in (t, r)]
    assert jnp.abs(ends[0] - ends[1]).max() > 0.1


@pytest.mark.usefixtures("float64")
def test_no_loss_where_both_jumps_start_at_one_time():
    flow_map = lambda x_t, t, s: jnp.sin(x_t) + expand(t - s, x_t)
    loss, _ = jax.jit(partial(matching, flow_map, always(0.7, 0.7, 0.1), particles=4))()
    np.testing.assert_allclose(loss, 0, atol=1e-14)
    loss, _ = jax.jit(partial(matching, flow_map, always(0.7, 0.6, 0.1), particles=4))()
    assert (loss > 1e-6).all()


@pytest.mark.usefixtures("float64")
def test_one_particle_and_a_linear_kernel_are_a_consistency_loss():
    y, goal = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 1, 3)))
    dot = lambda a, b: (a * b).sum(axis=-1)
    np.testing.assert_allclose(squared_mmd(y, goal, dot), ((y - goal) ** 2).sum(axis=(1, 2)), rtol=1e-12)
    # With more of them it is the distance of the means.
    y, goal = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4, 3)))
    means = ((y.mean(axis=1) - goal.mean(axis=1)) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_mmd(y, goal, dot), means, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_groups_and_the_kernel_written_out():
    """Particle by particle, with the diagonal; the goal takes no gradient and the group shares its times."""
    rng = np.random.default_rng(0)
    x, z = jnp.asarray(rng.standard_normal((2, 8, 2, 1)))
    law = lambda key, n: (jnp.linspace(0.7, 0.9, n), jnp.linspace(0.5, 0.8, n), jnp.linspace(0.1, 0.3, n))
    net = lambda a: lambda x_t, t, s: a * jnp.sin(x_t) + expand(t - s, x_t)

    def loss(a):
        return matching(net(a), law, coupling=lambda key, x: (x, z), particles=4, x=x)[0]

    def written_out(a):
        losses = []
        for group in (0, 1):
            rows = slice(4 * group, 4 * group + 4)
            t, r, s = (jnp.full(4, time[group]) for time in law(None, 2))
            y = net(a)(interpolate(PATH, x[rows], z[rows], t), t, s).reshape(4, 2)
            goal = net(0.7)(interpolate(PATH, x[rows], z[rows], r), r, s).reshape(4, 2)
            width = (t[0] - s[0]) * 0.5 * 2

            def k(a, b, width=width):
                return jnp.exp(-jnp.maximum(jnp.linalg.norm(a - b), 1e-8) / width)

            pairs = [k(y[i], y[j]) + k(goal[i], goal[j]) - 2 * k(y[i], goal[j]) for i in range(4) for j in range(4)]
            losses.append(imm_weight(t[:1], path=linear)[0] * sum(pairs) / 16)
        return jnp.repeat(jnp.stack(losses), 4)

    np.testing.assert_allclose(jax.jit(loss)(0.7), written_out(0.7), rtol=1e-10)
    h = 1e-6
    by_differences = (written_out(0.7 + h).sum() - written_out(0.7 - h).sum()) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda a: loss(a).sum()))(0.7), by_differences, rtol=1e-6)


def test_no_way_to_go_is_finite():
    """S = t after rounding: the kernel has no width, and the loss and its gradient are 0."""
    flow_map = lambda a: lambda x_t, t, s: x_t + a * expand(t - s, x_t)
    loss = lambda a: matching(flow_map(a), always(0.5, 0.5, 0.5), particles=4)[0].sum()
    np.testing.assert_allclose(jax.jit(jax.value_and_grad(loss))(1.0), (0, 0), atol=1e-5)


def test_equal_particles_have_a_finite_gradient():
    gradient = jax.grad(lambda a: laplace(a, a + 0.0, 0.5).sum())(jnp.ones((3, 2)))
    np.testing.assert_array_equal(gradient, 0)


# ---- Ingredients -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ETA_INVERSE)
def test_law_of_the_times(name):
    path, inverse = ETA_INVERSE[name]
    law = partial(triples.imm, path=path, time_of=inverse, halvings=6)
    t, r, s = jax.jit(law, static_argnums=1)(jax.random.key(0), 4096)
    # XLA computes s twice, in two programs whose rounding of t may differ by a bit.
    assert (s <= r + 1e-15).all()
    assert (r < t).all()
    assert (s >= 0.006).all()
    assert (t <= 0.994).all()
    eta = path.sigma(t) / path.alpha(t) - path.sigma(r) / path.alpha(r)
    low, high = (path.sigma(jnp.asarray(e)) / path.alpha(jnp.asarray(e)) for e in (0.006, 0.994))
    inside = r > s + 1e-14
    np.testing.assert_allclose(eta[inside], (high - low) / 2**6, rtol=1e-9)
    assert (eta[~inside] <= (high - low) / 2**6 + 1e-12).all()
    assert inside.sum() > 300
    assert (~inside).sum() > 300
    assert abs(t.mean() - 0.5) < 0.02
    assert abs(((s - 0.006) / (t - 0.006)).mean() - 0.5) < 0.02


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("base", [linear, cosine])
def test_jumps(base):
    """Identity at s = t; Simple-EDM's skip is the jump of the mean, and its parts have EDM's size."""
    path = scaled(base, 0.5)
    t, s = jnp.asarray([0.9, 0.6, 0.994]), jnp.asarray([0.3, 0.6, 0.0])
    jump = conversions.edm_jump(path, 0.5)
    x_t = jnp.asarray([[0.4], [-1.0], [2.0]])
    F = lambda x, t, s: jnp.cos(x)
    for kind in (jump, conversions.euler_jump(0.5)):
        ends = conversions.jump_to_flow_map(path, kind, F, sigma_data=0.5)(x_t, t, s)
        np.testing.assert_array_equal(ends[1], x_t[1])
    # Of x_s given x_t with one noise, for data N(0, 0.5^2): mean skip x_t, standard deviation |out|.
    (at, st), (a_s, ss) = ((path.alpha(r), path.sigma(r)) for r in (t, s))
    total = (at * 0.5) ** 2 + st**2
    covariance = at * a_s * 0.25 + st * ss
    np.testing.assert_allclose(jump.skip(t, s), covariance / total, rtol=1e-12)
    rest = (a_s * 0.5) ** 2 + ss**2 - covariance**2 / total
    np.testing.assert_allclose(jump.out(t, s) ** 2, rest, atol=1e-15)


def test_raw_network_sees_unit_variance():
    seen = []

    def F(x, t, s):
        seen.append(x)
        return x

    x_t = jnp.asarray([[2.0]])
    conversions.jump_to_flow_map(PATH, conversions.euler_jump(0.5), F, sigma_data=0.5)(
        x_t, jnp.asarray([0.5]), jnp.asarray([0.0])
    )
    np.testing.assert_allclose(seen[0], 2 / (0.5 * np.sqrt(0.5)), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_weight():
    """On the straight path ln(alpha^2 / sigma^2) = 2 ln((1 - t) / t) and its slope is -2 / (t (1 - t))."""
    t = jnp.asarray([0.01, 0.3, 0.9])
    for a, b in ((1, 5), (2, 4)):
        snr = 2 * np.log((1 - t) / t)
        expected = 0.5 / (1 + np.exp(snr - b)) * 2 / (t * (1 - t)) * (1 - t) ** a / ((1 - t) ** 2 + t**2)
        np.testing.assert_allclose(imm_weight(t, path=linear, a=a, b=b), expected, rtol=1e-12)


def test_bad_numbers():
    with pytest.raises(ValueError, match="particles must divide the batch of 12, got 5"):
        matching(lambda *inputs: None, always(0.7, 0.6, 0.1), particles=5)
    with pytest.raises(ValueError, match="low < high"):
        triples.imm(jax.random.key(0), 4, path=linear, time_of=lambda eta: eta, low=0.9, high=0.5)
