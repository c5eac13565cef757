import jax.numpy as jnp
import numpy as np
import pytest

from models.guidance import guide
from models.net import expand

X = jnp.linspace(-2.0, 2.0, 12).reshape(4, 3)
T = jnp.array([0.1, 0.5, 1.0, 20.0])


def denoiser(mean, deviation):
    """Exact denoiser of N(mean, deviation^2) for x_t = x + t z."""

    def net(x, t):
        gain = expand(deviation**2 / (deviation**2 + t**2), x)
        return mean + gain * (x - mean)

    return net


def test_guided_gaussians_shift_the_mean():
    # Two classes of equal width: guidance acts as a class whose mean lies further out, at every t.
    conditional, unconditional = denoiser(1.0, 0.5), denoiser(0.2, 0.5)
    guided = guide(conditional, unconditional, scale=3.0)
    np.testing.assert_allclose(guided(X, T), denoiser(0.2 + 3.0 * 0.8, 0.5)(X, T), rtol=1e-5, atol=1e-6)


def test_scale_one_is_the_network_and_zero_the_reference():
    net, reference = denoiser(1.0, 0.5), denoiser(0.2, 0.9)
    np.testing.assert_array_equal(guide(net, reference, 1.0)(X, T), net(X, T))
    np.testing.assert_allclose(guide(net, reference, 0.0)(X, T), reference(X, T), rtol=1e-5, atol=1e-6)


def test_interval_guides_only_inside_ends_included():
    net, reference = denoiser(1.0, 0.5), denoiser(0.2, 0.9)
    limited, everywhere = guide(net, reference, 2.0, (0.5, 1.0)), guide(net, reference, 2.0)
    np.testing.assert_array_equal(limited(X, T)[1:3], everywhere(X, T)[1:3])
    np.testing.assert_array_equal(limited(X, T)[::3], net(X, T)[::3])
    assert jnp.all(limited(X, T)[1:3] != net(X, T)[1:3])


def test_scale_per_example():
    net, reference, scales = denoiser(1.0, 0.5), denoiser(0.2, 0.9), jnp.array([1.0, 2.0, 3.0, 4.0])
    guided = guide(net, reference, scales)(X, T)
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(guided[i], guide(net, reference, scale)(X, T)[i], rtol=1e-6)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(3,), (1,), (4, 1), (5,)])
def test_a_scale_for_other_examples_is_refused(shape):
    guided = guide(denoiser(1.0, 0.5), denoiser(0.2, 0.9), jnp.ones(shape))
    with pytest.raises(ValueError, match=r"one number or one per example, \(4,\); got shape"):
        guided(X, T)


@pytest.mark.parametrize("interval", [(1.0, 0.5), (0.5, 0.5), (-0.1, 1.0), (float("nan"), 1.0), (0.0, float("nan"))])
def test_empty_and_negative_intervals_are_refused(interval):
    with pytest.raises(ValueError, match="interval must satisfy"):
        guide(denoiser(1.0, 0.5), denoiser(0.2, 0.9), 2.0, interval)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_scale_is_finite(scale):
    with pytest.raises(ValueError, match="scale must be finite"):
        guide(denoiser(1.0, 0.5), denoiser(0.2, 0.9), scale)
