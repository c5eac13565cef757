"""The sampler with adaptive steps, as runs of flows ask for it."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adaptive_steps
from samplers.noise import initial

KEYS, LABELS = jax.random.split(jax.random.key(0), 5), jnp.arange(5)


def velocity_of(params, labels):
    """The flow of N(label, params^2) data on the straight line, whose map is a straight line too."""

    def v(x, t):
        mean, t = labels[:, None], t[:, None]
        variance = (1 - t) ** 2 * params**2 + t**2
        return -mean + (t - (1 - t) * params**2) / variance * (x - (1 - t) * mean)

    return v


def test_samples_are_the_ends_of_the_flow_however_far_it_goes():
    (sampler,) = adaptive_steps.rk45(1e-5, velocity_of, (3,))
    assert (sampler.name, sampler.nfe) == ("rk45 1e-05", 0)
    # Of several widths: one alone is a scalar equation, and its estimate of a step's error has zeros to fall into.
    widths = jnp.array([0.1, 0.3, 0.5])
    samples = sampler.sample(widths, KEYS, LABELS)
    np.testing.assert_allclose(samples, LABELS[:, None] + widths * initial(KEYS, (3,)), atol=1e-4)


def test_no_tolerance_is_no_sampler_and_a_negative_one_is_refused():
    assert adaptive_steps.rk45(0.0, velocity_of, (2,)) == ()
    with pytest.raises(ValueError, match=r"must be positive, or 0 for none, got -0\.1"):
        adaptive_steps.rk45(-0.1, velocity_of, (2,))


def test_without_diffrax_it_says_how_to_do_without(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "samplers.adaptive":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install '\.\[adaptive\]'.*--config\.tolerance=0\.0"):
        adaptive_steps.rk45(1e-5, velocity_of, (2,))
