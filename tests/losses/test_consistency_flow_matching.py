from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency_flow_matching, paths, rectified_flow, steps
from tests.losses.quadrature import posterior_signs
from tests.losses.torch_numbers import TorchNumbers
from tests.oracles import Gaussian, constant_times, gaussian_flow_map, gaussian_velocity

DATA, KEY = Gaussian(), jax.random.key(0)
X_T = jnp.linspace(-2, 2, 5)


def edge(t, segments=2):
    return jnp.minimum(jnp.floor(segments * t), segments - 1) / segments


def segment_velocity(x, t, segments=2):
    """(x - X_{t -> e}(x)) / (t - e): the straight line to where the flow is at the end of the segment."""
    e = edge(t, segments)
    return (x - gaussian_flow_map(DATA, paths.linear, x, t, e)) / (t - e)[:, None]


def loss_at(net, t, *, delta, boundary, nodes=None, **options):
    """Mean over the posterior at one t."""
    nodes = nodes or posterior_signs(DATA, paths.linear, X_T, t)
    loss, metrics = consistency_flow_matching(
        net, nodes.x, KEY, times=constant_times(t), coupling=nodes.coupling, delta=delta, boundary=boundary, **options
    )
    return nodes.mean(loss), metrics


def gradient_at(t, params, **options):
    def objective(params):
        def net(x, t):
            return segment_velocity(x, t) + params[0] * x + params[1]

        return loss_at(net, t, **options)[0]

    return jax.grad(objective)(params)


def test_random_numbers_are_those_of_torch():
    """torch.manual_seed(0); torch.randn(16)[:5]."""
    expected = [-1.1258398, -1.1523602, -0.2505786, -0.4338788, 0.8487103]
    np.testing.assert_allclose(TorchNumbers(0).randn(16)[:5], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("boundary", "expected"), [(0, 65.57779), (0.0, 65.57779), (0.9, 4.667252e-4), (1, 4.667252e-4)]
)
def test_numbers_of_the_released_code(boundary, expected):
    """Its loss with the boundary set after construction. Data is at time 1 there, and the network sees 999 times that.

    In the batch no time is in the last tenth, so that 0.9 and 1 are one.
    """
    x = TorchNumbers(0).randn(8 * 48).reshape(8, 48)
    numbers = TorchNumbers(1)
    z, u = numbers.randn(8 * 48).reshape(8, 48), numbers.rand(8)
    t = jnp.asarray(1 - (u * np.float32(1 - 1e-3) + np.float32(1e-3)))

    def net(x, t):
        return -(0.3 * x + 0.01 * 999 * (1 - t[:, None]))

    loss, _ = consistency_flow_matching(
        net, jnp.asarray(x), KEY, boundary=boundary, times=lambda key, n: t, coupling=lambda key, x: (x, jnp.asarray(z))
    )
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss.mean(), expected, rtol=1e-6 if expected > 1 else 2e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("t", [0.3, 0.8])
def test_gradient_is_of_the_order_of_delta_at_the_exact_lines_alone(t):
    """Beside the delta that the loss has as a factor; half the delta, half the gradient."""
    exact, shifted = jnp.zeros(2), jnp.asarray([0.05, 0.0])
    errors = []
    for delta in (4e-3, 2e-3, 1e-3):
        errors.append(jnp.abs(gradient_at(t, exact, delta=delta, boundary=1.0, alpha=0.0) / delta).max())
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.05)
    assert jnp.abs(gradient_at(t, shifted, delta=1e-3, boundary=1.0, alpha=0.0) / 1e-3).max() > 3 * errors[-1]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("t", [0.49, 0.7])
def test_boundary_0_is_flow_matching_with_the_square_of_the_way_to_the_edge(t):
    nodes = posterior_signs(DATA, paths.linear, X_T, t)

    def net(x, t):
        return 0.4 * x - t[:, None]

    flow, _ = rectified_flow(net, nodes.x, KEY, times=constant_times(t), coupling=nodes.coupling)
    for boundary in (0, 0.0, jnp.asarray(0.0)):
        loss, _ = consistency_flow_matching(
            net, nodes.x, KEY, times=constant_times(t), coupling=nodes.coupling, boundary=boundary
        )
        np.testing.assert_allclose(loss, (t - edge(jnp.asarray(t))) ** 2 / 2 * flow, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("boundary", [0.0, 0.5, 1.0])
def test_straight_trajectories_leave_no_loss(boundary):
    z = jax.random.normal(KEY, (64, 2))
    x = DATA.mean + DATA.std * z

    def net(x_t, t):
        t = t[:, None]
        z = (x_t - (1 - t) * DATA.mean) / ((1 - t) * DATA.std + t)
        return z - DATA.mean - DATA.std * z

    loss, _ = consistency_flow_matching(
        net, x, KEY, boundary=boundary, segments=3, alpha=1.0, coupling=lambda key, x: (x, z)
    )
    np.testing.assert_allclose(loss, 0, atol=1e-25)


@pytest.mark.usefixtures("float64")
def test_a_distilled_flow_has_no_noise_in_its_goal():
    """Along the flow f(x_t, t) - f(x_r, r) is the error of one Euler step, so half the delta is a 16th of the loss."""
    step = partial(steps.euler, velocity=partial(gaussian_velocity, DATA, paths.linear))
    losses = [
        loss_at(segment_velocity, 0.8, delta=delta, boundary=1.0, alpha=0.0, step=step)[0] for delta in (2e-3, 1e-3)
    ]
    np.testing.assert_allclose(losses[0] / losses[1], 16, rtol=0.03)
    with_data = loss_at(segment_velocity, 0.8, delta=1e-3, boundary=1.0, alpha=0.0)[0]
    assert with_data > 1e4 * losses[1]


def test_the_target_is_not_differentiated():
    def objective(params, own):
        def net(x, t):
            return params["net"] * x

        def target(x, t):
            return params["target"] * x

        x = jax.random.normal(KEY, (16, 3))
        loss, _ = consistency_flow_matching(net, x, KEY, boundary=1.0, alpha=0.1, target=None if own else target)
        return loss.sum()

    params = {"net": 0.3, "target": 0.3}
    own, given = (jax.grad(objective)(params, own) for own in (True, False))
    assert given["target"] == 0
    assert given["net"] == own["net"] != 0


def test_velocities_are_compared_within_a_segment_and_above_the_boundary():
    def net(x, t):
        return x * t[:, None]

    def velocities(t, **options):
        return loss_at(net, t, delta=1e-3, **options)[1]["velocities"].max()

    assert velocities(0.5005, boundary=1.0) == 0
    assert velocities(0.501, boundary=1.0) == 0
    assert velocities(0.502, boundary=1.0) > 0
    assert velocities(0.502, boundary=0.4) == 0
    assert velocities(0.502, boundary=0.5) > 0


def test_the_share_without_a_point_to_compare_with_is_matched_to_data():
    x = jnp.ones((4096, 1))
    seen = []

    def net(x_t, t):
        seen.append(t)
        return jnp.full_like(x_t, 100.0)

    loss, metrics = consistency_flow_matching(net, x, KEY, boundary=0.75, segments=4)
    # A constant velocity is consistent with itself: f_t - f_r is of the order of delta times 100.
    np.testing.assert_array_equal(loss[metrics["t"] > 0.252] < 0.1, True)
    assert loss[(metrics["t"] < 0.25) & (metrics["t"] > 0.01)].min() > 0.1
    assert 0 <= metrics["t"].min() < 0.01
    assert 0.99 < metrics["t"].max() <= 0.999
    # Both are called once, on t and on delta less, but never below data.
    np.testing.assert_allclose(seen[1], jnp.maximum(seen[0] - 1e-3, 0), atol=1e-7)


@pytest.mark.parametrize("wrong", [{"segments": 0}, {"delta": 0.0}, {"delta": 0.6}])
def test_values_that_make_no_pair_are_refused(wrong):
    with pytest.raises(ValueError, match="segments >= 1 and 0 < delta <= 1 / segments, got"):
        consistency_flow_matching(lambda x, t: x, jnp.ones((2, 3)), KEY, boundary=0.9, **wrong)
