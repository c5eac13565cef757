"""The recipe of CT, iCT and ECT at its exact fixed points.

For Gaussian data the least-squares answer to f(x_t, t) ~ k_s x_s is k_t = k_s (s^2 + t s) / (s^2 + t^2): each pair
shrinks the output's standard deviation by cos(theta_t - theta_s) with theta = arctan(t / std). So the fixed point of
a discrete method is not the solution of the ODE, and both are asserted here.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, distances, pairs, paths
from losses.types import Pairs
from tests.losses.quadrature import mixture, signs
from tests.oracles import Gaussian, Mixture, mixture_consistency

DATA = Gaussian(0.0, 0.5)


def fixed(t: Any, s: Any, weight: Any = 1.0) -> Pairs:
    """The pair law that always answers (t, s)."""
    return lambda key, n: (jnp.full((n,), t), jnp.full((n,), s), jnp.full((n,), weight))


@partial(jax.jit, static_argnames="distance")
def slope_of(k: jax.Array, k_s: jax.Array, t: jax.Array, s: jax.Array, weight: jax.Array, *, distance=distances.l2):
    """Gradient in k of the recipe with f(x, t) = k x at t and k_s x at s."""
    nodes = signs(DATA)

    def objective(k):
        loss, _ = consistency(
            lambda x, time: jnp.where(time == t, k, k_s)[:, None] * x, nodes.x, jax.random.key(0),
            pairs=fixed(t, s, weight), distance=distance, coupling=nodes.coupling,
        )  # fmt: skip
        return nodes.mean(loss)

    return jax.grad(objective)(k)


def solve(k_s: float, t: float, s: float, weight: float = 1.0) -> float:
    """The k where that gradient is 0: it is linear in k, since the target is a constant."""
    at_0, at_1, at_2 = (float(slope_of(float(k), k_s, t, s, weight)) for k in (0, 1, 2))
    np.testing.assert_allclose(at_2 - at_1, at_1 - at_0, rtol=1e-9)
    return at_0 / (at_0 - at_1)


def angle(t: float) -> float:
    return np.arctan(t / DATA.std)


@pytest.mark.usefixtures("float64")
def test_ct_fixed_point_is_the_product_of_cosines():
    grid = np.asarray(pairs.karras_time(jnp.arange(11), jnp.asarray(11), sigma_min=0.002, sigma_max=80.0, rho=7.0))
    k = 1.0  # the boundary: f(x, 0.002) = x
    for s, t in pairwise(grid):
        k = solve(k, float(t), float(s))
    output_std = k * np.hypot(DATA.std, 80)
    ode_std = np.hypot(DATA.std, 0.002)
    np.testing.assert_allclose(output_std / ode_std, np.prod(np.cos(np.diff([angle(t) for t in grid]))), rtol=1e-11)
    np.testing.assert_allclose(output_std / ode_std, 0.7528, atol=5e-5)


@pytest.mark.usefixtures("float64")
def test_the_ode_is_not_the_fixed_point_of_ct():
    """At the exact consistency function the gradient still shrinks the output, by 1 - cos of the angle."""
    t, s = 0.965417, 0.318283
    k_t, k_s = (np.sqrt((0.25 + 0.002**2) / (0.25 + r**2)) for r in (t, s))
    gradient = float(slope_of(k_t, k_s, t, s, 1.0))
    np.testing.assert_allclose(gradient, 2 * (0.25 + t**2) * k_t * (1 - np.cos(angle(t) - angle(s))), rtol=1e-9)
    assert gradient > 0.05


def chain(stage: int) -> float:
    """Product of cosines along t -> r(t) from 80 down to 0."""
    t, product = jnp.asarray([80.0]), 1.0
    hop = jax.jit(pairs.ect_hop)
    while t[0] > 0:
        s, _ = hop(t, stage=stage)
        product *= np.cos(angle(float(t[0])) - angle(float(s[0])))
        # Each hop below the first stage leaves a fraction of t: the angle that is left here is 1e-8.
        t = jnp.where(s > 1e-8, s, 0.0)
    return product


@pytest.mark.usefixtures("float64")
def test_ect_products_along_the_chain_of_hops():
    golden = [0.597, 0.678, 0.862, 0.937, 0.969, 0.985, 0.993, 0.996]
    np.testing.assert_allclose([chain(stage) for stage in range(8)], golden, atol=6e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("stage", [0, 2, 7])
def test_ect_hop_shrinks_by_the_cosine(stage):
    s, hop = pairs.ect_hop(jnp.asarray([3.0]), stage=stage)
    k_s = 0.8
    k = solve(k_s, 3.0, float(s[0]), float(1 / hop[0]))
    ratio = k * np.hypot(DATA.std, 3.0) / (k_s * np.hypot(DATA.std, float(s[0])))
    np.testing.assert_allclose(ratio, np.cos(angle(3.0) - angle(float(s[0]))), rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("c", [0.0, 0.06])
def test_pseudo_huber_has_the_same_fixed_point_on_gaussian_data(c):
    """The residual given x_t is symmetric about its mean, so normalising it leaves the mean at 0."""
    t, s = 1.0, 0.4
    # Rotate two independent Gaussians into (x_t, residual) and take both signs of the residual.
    x_t, u = jax.random.normal(jax.random.key(0), (2, 64, 1)) * jnp.hypot(0.5, t)
    x_t, u = jnp.tile(x_t, (2, 1)), jnp.concatenate([u, -u])
    x = (0.25 * x_t + 0.5 * t * u) / (0.25 + t**2)
    z = (x_t - x) / t

    def gradient(k):
        def objective(k):
            loss, _ = consistency(
                lambda x, time: jnp.where(time == t, k, 1.0)[:, None] * x, x, jax.random.key(0),
                pairs=fixed(t, s), distance=partial(distances.pseudo_huber, c=c), coupling=lambda key, x: (x, z),
            )  # fmt: skip
            return loss.mean()

        return jax.grad(objective)(k)

    exact = (0.25 + t * s) / (0.25 + t**2)
    np.testing.assert_allclose(gradient(exact), 0, atol=1e-12)
    assert abs(gradient(exact + 0.01)) > 1e-3


@pytest.mark.usefixtures("float64")
def test_exact_consistency_function_of_a_mixture():
    """Mean difference along a pair, given x_t, divided by the step: it falls with the step (squared l2, not a norm).

    Measured as the gradient in a perturbation of f by a function of x_t. At the exact f the mean tangent is 0.
    """
    t = 0.6
    nodes = mixture(Mixture(), t)

    @jax.jit
    def gradient(s, shift):
        def objective(amplitude):
            def net(x, time):
                f = mixture_consistency(Mixture(), paths.edm, x, time)
                basis = jnp.stack([jnp.ones_like(x), jnp.sin(2 * x), jnp.cos(3 * x)])
                return f + shift * x + jnp.tensordot(amplitude, basis, 1)

            weight = 1 / (t - s)
            loss, _ = consistency(
                net, nodes.x, jax.random.key(0), pairs=fixed(t, s, weight),
                distance=distances.l2, coupling=nodes.coupling,
            )  # fmt: skip
            return nodes.mean(loss)

        return jnp.abs(jax.grad(objective)(jnp.zeros(3))).max()

    steps = [0.1, 0.05, 0.025, 0.0125]
    sizes = [float(gradient(t - h, 0.0)) for h in steps]
    assert sizes[0] > 1e-3
    np.testing.assert_allclose(np.log2(np.divide(sizes[:-1], sizes[1:])), 1, atol=0.2)
    # A wrong f has a mean tangent that does not fall.
    assert float(gradient(t - 0.0125, 0.3)) > 10 * sizes[-1]


def test_target_is_used_and_takes_no_gradient():
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def objective(params, target_params):
        loss, _ = consistency(
            lambda x, t: params * x, x, jax.random.key(1), pairs=fixed(2.0, 1.0), distance=distances.l2,
            target=lambda x, t: target_params * x,
        )  # fmt: skip
        return loss.sum()

    value, (student, target) = jax.value_and_grad(objective, (0, 1))(2.0, 3.0)
    z = jax.random.normal(jax.random.split(jax.random.key(1))[1], (8, 3))
    x_t, x_s = x + 2 * z, x + z
    np.testing.assert_allclose(value, jnp.sum((2 * x_t - 3 * x_s) ** 2), rtol=1e-5)
    np.testing.assert_allclose(student, 2 * jnp.sum((2 * x_t - 3 * x_s) * x_t), rtol=1e-5)
    assert target == 0


def test_without_a_target_the_network_is_its_own_and_is_stopped():
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def objective(params, target):
        net = lambda x, t: params * x
        loss, _ = consistency(net, x, jax.random.key(1), pairs=fixed(2.0, 1.0), target=target)
        return loss.sum()

    np.testing.assert_array_equal(jax.grad(objective)(2.0, None), jax.grad(objective)(2.0, lambda x, t: 2.0 * x))


def test_both_calls_see_the_same_noise():
    """With f(x, t) = x the difference is (t - s) z: x cancels, and so would z if it were drawn twice only by chance."""
    x = 100 * jax.random.normal(jax.random.key(0), (8, 3))
    z = jax.random.normal(jax.random.key(5), (8, 3))
    loss, metrics = consistency(
        lambda x, t: x, x, jax.random.key(1), pairs=fixed(2.0, 0.5, 4.0), coupling=lambda key, x: (x, z)
    )
    np.testing.assert_allclose(metrics["distance"], 1.5 * jnp.linalg.norm(z, axis=1), rtol=1e-4)
    np.testing.assert_allclose(loss, 4 * metrics["distance"], rtol=1e-6)
    own, _ = consistency(lambda x, t: x, x, jax.random.key(1), pairs=fixed(2.0, 0.5), distance=distances.l2)
    assert abs(own.mean() / (3 * 1.5**2) - 1) < 4 * np.sqrt(2 / 24)


def test_step_is_asked_for_the_second_point_and_takes_no_gradient():
    """It sees path, x, z and both times; the target is evaluated where it ends, and nothing flows back through it."""
    x, z = jax.random.normal(jax.random.key(0), (2, 8, 3))
    asked = []

    def objective(params, teacher):
        def step(path, *arguments):
            asked.append((path, arguments))
            return teacher * arguments[0]

        loss, _ = consistency(
            lambda x, t: params * x + t[:, None], x, jax.random.key(1), pairs=fixed(0.8, 0.3), step=step,
            path=paths.linear, distance=distances.l2, coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return loss.sum()

    value, (student, teacher) = jax.value_and_grad(objective, (0, 1))(2.0, 3.0)
    path, arguments = asked[0]
    assert path is paths.linear
    for got, expected in zip(arguments, (x, z, jnp.full(8, 0.8), jnp.full(8, 0.3)), strict=True):
        np.testing.assert_array_equal(got, expected)
    x_t = 0.2 * x + 0.8 * z
    difference = 2 * x_t + 0.8 - (2 * 3 * x + 0.3)
    np.testing.assert_allclose(value, jnp.sum(difference**2), rtol=1e-5)
    np.testing.assert_allclose(student, 2 * jnp.sum(difference * x_t), rtol=1e-5)
    assert teacher == 0


def test_step_to_the_data_is_the_target_itself():
    """An estimate of the data, not the data: x_s and not x is what f is compared with at s = 0."""
    x = jnp.ones((4, 3))
    loss, _ = consistency(
        lambda x, t: x, x, jax.random.key(1), pairs=fixed(1.5, 0.0), distance=distances.l2,
        step=lambda path, x, z, t, s: 0.5 * x, coupling=lambda key, x: (x, jnp.zeros_like(x)),
    )  # fmt: skip
    np.testing.assert_allclose(loss, 3 * 0.5**2, rtol=1e-6)


def test_pair_that_ends_at_data_compares_with_the_data():
    """ECT's first stage: s = 0 and a network that takes ln t. Half of the pairs are ordinary ones."""
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def pair_law(key, n):
        return jnp.full(n, 1.5), jnp.where(jnp.arange(n) < 4, 0.0, 0.5), jnp.ones(n)

    def objective(params):
        loss, _ = consistency(
            lambda x, t: params[0] * x + params[1] * jnp.log(t)[:, None], x, jax.random.key(1), pairs=pair_law,
            distance=distances.l2, coupling=lambda key, x: (x, jnp.ones_like(x)),
        )  # fmt: skip
        return loss.sum(), loss

    (_, loss), gradient = jax.value_and_grad(objective, has_aux=True)(jnp.asarray([0.8, 0.3]))
    prediction = 0.8 * (x + 1.5) + 0.3 * np.log(1.5)
    np.testing.assert_allclose(loss[:4], jnp.sum((prediction - x)[:4] ** 2, axis=1), rtol=1e-5)
    ordinary = prediction - (0.8 * (x + 0.5) + 0.3 * np.log(0.5))
    np.testing.assert_allclose(loss[4:], jnp.sum(ordinary[4:] ** 2, axis=1), rtol=1e-5)
    assert jnp.isfinite(gradient).all()


def test_the_network_is_never_asked_at_the_data():
    """Its sinusoids of ln 0 would be NaN: thrown away, yet the end of a run under jax_debug_nans."""
    asked = []

    def net(x, t):
        asked.append(t)
        return x

    consistency(net, jnp.ones((4, 3)), jax.random.key(1), pairs=fixed(1.5, 0.0))
    assert all((t > 0).all() for t in asked)


def test_dropout_mask_is_shared_through_the_closure():
    """Both calls drop the same elements: with f = mask x the difference vanishes exactly there, and only there."""
    x = jax.random.normal(jax.random.key(0), (8, 16))
    dropout_key = jax.random.key(7)
    masks = []

    def net(x, t):
        masks.append(jax.random.bernoulli(dropout_key, 0.5, x.shape))
        return jnp.where(masks[-1], x, 0.0)

    differences = []

    def distance(a, b):
        differences.append(a - b)
        return distances.l2(a, b)

    consistency(net, x, jax.random.key(1), pairs=fixed(2.0, 0.5), distance=distance)
    assert len(masks) == 2
    np.testing.assert_array_equal(differences[0] == 0, ~masks[0])


@pytest.mark.parametrize(
    "law", [partial(pairs.ct, points=11), partial(pairs.ict, points=21), partial(pairs.ect, stage=3)]
)
def test_published_pair_laws(law):
    """Images, jitted: finite float32 losses, one for each example, and the weight of the law."""
    x = 0.5 * jax.random.normal(jax.random.key(0), (16, 4, 4, 3))

    @jax.jit
    def run(key):
        return consistency(lambda x, t: x / (1 + t[:, None, None, None] ** 2), x, key, pairs=law)

    loss, metrics = run(jax.random.key(1))
    assert loss.shape == metrics["t"].shape == metrics["distance"].shape == (16,)
    assert loss.dtype == jnp.float32
    assert jnp.isfinite(loss).all()
    assert (loss > 0).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "net",
    [
        lambda x, t: t,
        lambda x, t: x.mean(axis=(1, 2, 3), keepdims=True),
        lambda x, t: jnp.repeat(x, 3, axis=-1),
        lambda x, t: x[:, :2],
        lambda x, t: x[:1],
    ],
    ids=["one number", "one pixel", "three channels of one", "cropped", "one example"],
)
def test_wrong_output_shape(net):
    x = jnp.ones((4, 4, 4, 1))
    with pytest.raises(ValueError, match=r"\(4, 4, 4, 1\)"):
        consistency(net, x, jax.random.key(0), pairs=fixed(2.0, 1.0))
    with pytest.raises(ValueError, match=r"\(4, 4, 4, 1\)"):
        consistency(lambda x, t: x, x, jax.random.key(0), pairs=fixed(2.0, 1.0), target=net)


def test_half_precision_network():
    x = jnp.ones((4, 3), jnp.bfloat16)
    loss, _ = consistency(lambda x, t: x.astype(jnp.bfloat16), x, jax.random.key(0), pairs=fixed(2.0, 1.0))
    assert loss.dtype == jnp.float32
