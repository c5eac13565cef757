"""MeanFlow at the exact mean velocity: the identity holds, the loss is its floor and the gradient is 0."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import guided_velocity, mean_flow, paths
from losses.conversions import average_velocity_to_flow_map
from losses.mean_flow import parts, total_derivative, which_jump
from losses.paths import linear
from tests.losses.quadrature import posterior_signs, signs
from tests.oracles import Gaussian, gaussian_average_velocity, gaussian_flow_map, gaussian_velocity

DATA = Gaussian(0.7, 0.5)
T = jnp.asarray([1.0, 0.8, 0.8, 0.5, 0.4, 0.05])
S = jnp.asarray([0.0, 0.25, 0.8, 0.0, 0.399, 0.0])


def exact(x, t, s, y):
    return gaussian_average_velocity(DATA, x, t, s)


def exact_target(v, x_t, t, y):
    return gaussian_velocity(DATA, linear, x_t, t)


def constant_pairs(t, s):
    return lambda key, n: (jnp.full(n, t), jnp.full(n, s), jnp.ones(n))


def given_pairs(t, s):
    return lambda key, n: (t, s, jnp.ones(n))


# ---- The exact solution ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_the_exact_mean_velocity_is_the_flow_map():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    jump = average_velocity_to_flow_map(lambda x, t, s: exact(x, t, s, None))
    np.testing.assert_allclose(jump(x, T, S), gaussian_flow_map(DATA, linear, x, T, S), rtol=1e-12)
    np.testing.assert_allclose(exact(x, T, T, None), gaussian_velocity(DATA, linear, x, T), rtol=1e-12)


@pytest.mark.parametrize(("x64", "limit"), [(True, 1e-12), (False, 1e-6)])
def test_identity_holds_to_rounding(x64, limit):
    """u = b - (t - s) du/dt along the velocity b, from t = 1 to s = 0 and where s = t."""
    with jax.enable_x64(x64):
        x, t, s = jax.random.normal(jax.random.key(0), (6, 3)), jnp.asarray(T, float), jnp.asarray(S, float)
        loss, metrics = mean_flow(
            exact, x, jax.random.key(1), pairs=given_pairs(t, s), jump_share=1, target=exact_target, p=0
        )
        assert jnp.sqrt(loss).max() < limit * np.sqrt(3)
        assert metrics["distance"].max() < limit**2
        wrong, _ = mean_flow(
            lambda x, t, s, y: exact(x, t, s, y) + 0.1 * x, x, jax.random.key(1),
            pairs=given_pairs(t, s), jump_share=1, target=exact_target, p=0,
        )  # fmt: skip
        assert wrong.min() > 1e-4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("t", "s"), [(0.8, 0.25), (0.8, 0.8), (1.0, 0.0), (0.3, 0.0)])
def test_floor(t, s):
    """(V_s / V_t) s^2 / V_t for each element: the residual is (v - b) dX/dx_t."""
    nodes = signs(DATA)
    loss, _ = mean_flow(
        exact, nodes.x, jax.random.key(0), pairs=constant_pairs(t, s), jump_share=1, p=0, coupling=nodes.coupling
    )
    variance = [(1 - r) ** 2 * DATA.std**2 + r**2 for r in (t, s)]
    floor = variance[1] / variance[0] * DATA.std**2 / variance[0]
    np.testing.assert_allclose(nodes.mean(loss), floor, rtol=1e-12)
    if (t, s) == (0.8, 0.25):
        np.testing.assert_allclose(floor, 0.12019, atol=5e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", [0.0, 0.75, 1.0])
@pytest.mark.parametrize(("t", "s"), [(0.8, 0.25), (0.6, 0.0), (0.7, 0.7)])
def test_gradient_vanishes_at_the_exact_mean_velocity_alone(p, t, s):
    """In the directions 1, x and x^2, given x_t; a Gaussian posterior is symmetric, so the adaptive weight is even."""
    nodes = posterior_signs(DATA, linear, jnp.linspace(-1.5, 2.0, 6), t)

    @jax.jit
    def gradient(params):
        def objective(params):
            def u(x, t, s, y):
                return exact(x, t, s, y) + params[0] + params[1] * x + params[2] * x**2

            loss, _ = mean_flow(
                u, nodes.x, jax.random.key(0), pairs=constant_pairs(t, s), jump_share=1, p=p, coupling=nodes.coupling
            )
            return nodes.mean(loss)

        return jax.grad(objective)(params)

    np.testing.assert_allclose(gradient(jnp.zeros(3)), 0, atol=1e-12)
    for i in range(3):
        assert jnp.abs(gradient(jnp.zeros(3).at[i].set(0.05))).max() > 1e-3


def test_floor_under_the_published_law():
    """Whole recipe, a quarter of the examples with s < t: the mean over both parts, by Monte Carlo."""
    n = 40_000
    x = DATA.mean + DATA.std * jax.random.normal(jax.random.key(0), (n, 1))
    loss, metrics = jax.jit(lambda key: mean_flow(exact, x, key, p=0))(jax.random.key(1))
    t, s = np.asarray(metrics["t"]), np.asarray(metrics["s"])
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(s < t, np.arange(n) % 4 == 0)
    variance = [(1 - r) ** 2 * DATA.std**2 + r**2 for r in (t, s)]
    floor = variance[1] / variance[0] * DATA.std**2 / variance[0]
    difference = np.asarray(loss) - floor
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(n)


# ---- The derivative --------------------------------------------------------------------------------------------------


@pytest.fixture
def network():
    """A small network of x_t, t, t - s and a label, and parameters."""
    rng = np.random.default_rng(0)
    shapes = {"in": (4, 8), "label": (6, 8), "hidden": (8, 8), "out": (8, 2)}
    params = {name: jnp.asarray(0.6 * rng.standard_normal(shape)) for name, shape in shapes.items()}

    def apply(params, x, t, s, y):
        h = jnp.concatenate([x, t[:, None], (t - s)[:, None]], axis=1) @ params["in"] + params["label"][y]
        return jnp.tanh(jnp.tanh(h) @ params["hidden"]) @ params["out"]

    return apply, params


@pytest.mark.usefixtures("float64")
def test_derivative_against_finite_differences(network):
    """With the network's second input t - s, of which the derivative is 1 as well."""
    apply, params = network
    x, v = jax.random.normal(jax.random.key(0), (2, 6, 2))
    y = jnp.arange(6) % 5
    u, du = total_derivative(partial(apply, params), x, T, S, v, y)
    h = 1e-3
    ahead, behind = (apply(params, x + d * v, T + d, S, y) for d in (h, -h))
    np.testing.assert_allclose(du, (ahead - behind) / (2 * h), atol=1e-5 * float(jnp.abs(du).max()))
    np.testing.assert_array_equal(u, apply(params, x, T, S, y))


@pytest.mark.usefixtures("float64")
def test_any_velocity_and_any_network_give_the_rate_of_the_jump(network):
    """dX/dt = v - u - (t - s) du/dt for X = x_t - (t - s) u: what the loss regresses to 0."""
    apply, params = network
    x, v = jax.random.normal(jax.random.key(0), (2, 6, 2))
    u = partial(apply, params)
    value, rate = total_derivative(u, x, T, S, v, jnp.zeros(6, int))

    def jumped(x, t):
        return average_velocity_to_flow_map(lambda x, t, s: u(x, t, s, jnp.zeros(6, int)))(x, t, S)

    moved = jax.jvp(jumped, (x, T), (v, jnp.ones_like(T)))[1]
    np.testing.assert_allclose(moved, v - value - (T - S)[:, None] * rate, rtol=1e-9, atol=1e-12)


# ---- In two parts ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("jump_share", [0.25, 0.75])
@pytest.mark.parametrize("guided", [False, True])
def test_the_parts_give_the_loss_and_the_gradient_of_the_whole(network, jump_share, guided):
    apply, params = network
    x, y, key = jax.random.normal(jax.random.key(0), (8, 2)), jnp.arange(8) % 6, jax.random.key(1)

    def loss_of(params, pairs, jump_share):
        u = partial(apply, params)
        target = partial(guided_velocity, u=u, null=5, omega=0.4, kappa=0.5) if guided else None
        loss, metrics = mean_flow(
            u, x, key, y=y, target=target, pairs=pairs, jump_share=jump_share, p=0.75, c=1e-3,
            coupling=lambda key, x: (x, x[::-1] ** 2),
        )  # fmt: skip
        return jnp.sum(loss * jnp.arange(1.0, 9.0)), (loss, metrics)

    def pairs(key, n):
        return jnp.linspace(0.3, 1.0, n), jnp.linspace(0.0, 0.6, n), jnp.ones(n)

    value = jax.jit(jax.value_and_grad(loss_of, has_aux=True), static_argnums=(1, 2))
    (_, (loss, metrics)), gradient = value(params, pairs, jump_share)
    t, s = metrics["t"], metrics["s"]
    np.testing.assert_array_equal(s < t, jnp.arange(8) % 4 < 4 * jump_share)
    (_, (whole, _)), whole_gradient = value(params, lambda key, n: (t, s, jnp.ones(n)), 1)
    np.testing.assert_allclose(loss, whole, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(whole_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert any(jnp.any(a) for a in jax.tree.leaves(gradient))


def test_conditions_go_with_their_examples():
    """One call for each part: value and derivative share a dropout mask."""
    seen = []

    def u(x, t, s, y):
        seen.append(y["label"].tolist())
        return jnp.where(x[:, 0] == y["label"], 0.0, 1.0)[:, None] * jnp.ones_like(x)

    labels = jnp.arange(8)
    loss, _ = mean_flow(
        u, jnp.arange(8.0)[:, None], jax.random.key(0), y={"label": labels}, pairs=constant_pairs(0.5, 0.25),
        coupling=lambda key, x: (x, x),
    )  # fmt: skip
    assert seen == [[0, 4], [1, 2, 3, 5, 6, 7]]
    np.testing.assert_array_equal(loss, 0)


def test_parts_come_together_again():
    first, rest, join = parts(12, 2 / 3)
    tree = {"a": jnp.arange(12), "b": jnp.arange(24.0).reshape(12, 2)}
    np.testing.assert_array_equal(first(tree)["a"], [0, 1, 3, 4, 6, 7, 9, 10])
    for name, a in tree.items():
        np.testing.assert_array_equal(join(first(tree)[name], rest(tree)[name]), a)
        np.testing.assert_array_equal(first(tree)[name], a[which_jump(12, 2 / 3)])


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.0, r"must lie in \(0, 1\], got 0.0"),
        (1.5, r"must lie in \(0, 1\], got 1.5"),
        (1 / 3, "1 of every 3 examples shall have s < t, and the batch has 8"),
        (1e-3, "0 of every 1 examples"),
    ],
)
def test_a_share_that_does_not_fit(share, message):
    with pytest.raises(ValueError, match=message):
        mean_flow(exact, jnp.ones((8, 1)), jax.random.key(0), jump_share=share)


# ---- The weight ------------------------------------------------------------------------------------------------------


def test_with_power_one_the_loss_is_one_and_the_gradient_is_not(network):
    apply, params = network
    x = 10 * jax.random.normal(jax.random.key(0), (8, 2))

    def objective(params):
        return mean_flow(partial(apply, params), x, jax.random.key(1), y=jnp.zeros(8, int))[0].mean()

    value, gradient = jax.jit(jax.value_and_grad(objective))(params)
    assert 0.99 < value < 1
    assert max(jnp.abs(a).max() for a in jax.tree.leaves(gradient)) > 1e-3


def test_gradient_is_finite_where_the_error_is_zero():
    """Points at data 0 and noise 0: u = 0 is exact."""

    def objective(a):
        u = lambda x, t, s, y: a * x
        return mean_flow(u, jnp.zeros((4, 2)), jax.random.key(0), coupling=lambda key, x: (x, x))[0].sum()

    value, gradient = jax.jit(jax.value_and_grad(objective))(1.0)
    assert value == 0
    assert gradient == 0


def test_half_precision_network():
    def u(x, t, s, y):
        return x.astype(jnp.bfloat16)

    loss, _ = jax.jit(lambda x, key: mean_flow(u, x, key))(jnp.ones((4, 2), jnp.bfloat16), jax.random.key(0))
    assert loss.dtype == jnp.float32
    assert jnp.isfinite(loss).all()


# ---- Another method that it is ---------------------------------------------------------------------------------------


def test_mean_flow_down_to_data_is_a_consistency_model_on_the_straight_path():
    """With s = 0 the gradient is 2/t stop_gradient(df/dt) times that of f = x_t - t u: sCM's, up to its weight."""
    x, z = jax.random.normal(jax.random.key(0), (2, 4, 3))
    t = jnp.linspace(0.2, 1.0, 4)
    x_t, v = paths.interpolate(linear, x, z, t), paths.velocity(linear, x, z, t)

    def u(a, x, t):
        return a * jnp.sin(x) * t[:, None]

    def ours(a):
        loss, _ = mean_flow(
            lambda x, t, s, y: u(a, x, t), x, jax.random.key(0), pairs=given_pairs(t, 0 * t), jump_share=1, p=0,
            coupling=lambda key, x: (x, z),
        )  # fmt: skip
        return loss.sum()

    def f(a, x, t):
        return x - t[:, None] * u(a, x, t)

    def theirs(a):
        rate = jax.lax.stop_gradient(jax.jvp(partial(f, a), (x_t, t), (v, jnp.ones(4)))[1])
        return jnp.sum(2 / t[:, None] * f(a, x_t, t) * rate)

    np.testing.assert_allclose(jax.jit(jax.grad(ours))(0.7), jax.jit(jax.grad(theirs))(0.7), rtol=1e-5)
