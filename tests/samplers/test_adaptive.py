from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from samplers import adaptive, sample_keys
from tests.oracles import PATHS, Gaussian, gaussian_velocity

DATA = Gaussian(0.7, 0.5)
LINEAR = PATHS["linear"].path


@pytest.mark.usefixtures("float64")
def test_noise_becomes_gaussian_data_and_a_lower_tolerance_costs_more():
    """A tolerance is one step's; the errors of a few steps add up to some times that."""
    z = jax.random.normal(jax.random.key(0), (4, 3))
    costs = []
    for tolerance in (1e-5, 1e-8):
        x, evaluations = adaptive.dopri5(partial(gaussian_velocity, DATA, LINEAR), z, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(x, DATA.mean + DATA.std * z, atol=30 * tolerance)
        assert (evaluations % 6 == 1).all()
        costs.append(np.asarray(evaluations))
    assert (costs[0] < costs[1]).all()


def test_each_sample_has_steps_of_its_own_and_its_own_label_inside_jit():
    """Sample i flows from its z to labels[i] + s_i z; the widths s differ, and so does what they cost."""
    z = jnp.full((4, 3), 1.5)
    stds = jnp.asarray([1.0, 0.5, 0.2, 0.05])
    calls = []

    def solve(z, labels, stds):
        def net(x, t):
            assert x.shape == (4, 3) or len(stds) == 2
            assert t.shape == (len(stds),)
            jax.debug.callback(lambda: calls.append(1))
            t, std, mean = t[:, None], stds[:, None], labels[:, None]
            slope = (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)
            return slope * (x - (1 - t) * mean) - mean

        return adaptive.dopri5(net, z)

    labels = jnp.asarray([3.0, -1.0, 0.5, 2.0])
    x, evaluations = jax.jit(solve)(z, labels, stds)
    jax.effects_barrier()
    np.testing.assert_allclose(x, labels[:, None] + stds[:, None] * z, atol=1e-3)
    assert (np.diff(evaluations) > 0).all()
    assert len(calls) == evaluations.max()
    fewer, fewer_evaluations = jax.jit(solve)(z[1:3], labels[1:3], stds[1:3])
    np.testing.assert_array_equal(fewer_evaluations, evaluations[1:3])
    np.testing.assert_allclose(fewer, x[1:3], rtol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("keys", [None, sample_keys(0, np.arange(3))], ids=["exact", "hutchinson"])
def test_likelihood_of_gaussian_data(keys):
    """N(0.7, 0.25) at 0.2, 0.7 and 1.5, where the divergence of one element has no estimate to make."""
    x = jnp.asarray([[0.2], [0.7], [1.5]])
    got, evaluations = adaptive.log_likelihood(
        partial(gaussian_velocity, DATA, LINEAR), x, keys, path=LINEAR, rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(got, norm.logpdf(x[:, 0], 0.7, 0.5), atol=1e-6)
    np.testing.assert_allclose(got, [-0.7258, -0.2258, -1.5058], atol=5e-5)
    assert (evaluations > 6).all()


def test_a_velocity_that_is_not_finite_is_an_error_and_no_endless_loop():
    with pytest.raises(RuntimeError, match="maximum number of solver steps was reached"):
        jax.block_until_ready(adaptive.dopri5(lambda x, t: x / 0, jnp.ones((2, 3))))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": 0.5, "end": 0.5}, r"above the end 0\.5 >= 0"),
        ({"end": -0.1}, r"above the end -0\.1 >= 0"),
        ({"rtol": -1e-3}, r"rtol >= 0 and atol > 0, got rtol=-0\.001"),
        ({"atol": 0.0}, r"rtol >= 0 and atol > 0, .* atol=0\.0"),
        ({"atol": float("nan")}, r"atol=nan"),
    ],
)
def test_bad_values_are_refused(values, message):
    for solve in (
        partial(adaptive.dopri5, lambda x, t: x, jnp.ones((2, 3))),
        partial(adaptive.log_likelihood, lambda x, t: x, jnp.ones((2, 3)), None, path=LINEAR),
    ):
        with pytest.raises(ValueError, match=message):
            solve(**values)
