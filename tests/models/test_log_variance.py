from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.log_variance import EDM2LogVariance, LogVariance

T = jnp.linspace(-1.5, 1.5, 7)


def test_starts_at_zero_and_is_one_matrix_over_features_of_unit_size():
    module = LogVariance(features=32)
    params = module.init(jax.random.key(0), T)["params"]
    assert jax.tree.map(jnp.shape, params) == {"linear": {"kernel": (32, 1)}}
    assert not np.any(np.asarray(module.apply({"params": params}, T)))
    # The derivative by the weights of a linear layer is its input.
    features = jax.jacobian(lambda p: module.apply({"params": p}, T))(params)["linear"]["kernel"]
    np.testing.assert_allclose((features**2).mean((1, 2)), 1.0, rtol=1e-5)


def test_is_float32_at_low_precision():
    module = LogVariance()
    out: Any = module.apply(module.init(jax.random.key(0), T), T.astype(jnp.bfloat16))
    assert out.shape == T.shape
    assert out.dtype == jnp.float32


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_minimum_of_the_weighted_loss_is_the_logarithm_of_the_loss(scale):
    module = LogVariance(scale=scale)
    losses = jnp.exp(-1.0 + 2.0 * T)

    def objective(params):
        w: Any = module.apply({"params": params}, T)
        return jnp.mean(jnp.exp(-w) * losses + w)

    params = module.init(jax.random.key(0), T)["params"]
    descend = jax.jit(lambda p: jax.tree.map(lambda a, g: a - 0.01 * g, p, jax.grad(objective)(p)))
    for _ in range(400):
        params = descend(params)
    np.testing.assert_allclose(np.asarray(module.apply({"params": params}, T)), jnp.log(losses), atol=1e-2)


def test_that_of_edm2_does_not_depend_on_the_size_of_its_weight():
    module = EDM2LogVariance(frequencies=(0.5, -1.0, 2.0), phases=(0.1, 0.6, 0.9))
    weight = jnp.array([[1.0], [-2.0], [0.5]])
    out: Any = module.apply({"params": {"linear": {"weight": weight}}}, T)
    assert out.shape == T.shape
    larger: Any = module.apply({"params": {"linear": {"weight": 100 * weight}}}, T)
    np.testing.assert_allclose(larger, out, rtol=1e-3, atol=1e-4)  # but for the 1e-4 by which it is divided
    angles = 2 * np.pi * (np.asarray(T)[:, None] * np.array([0.5, -1.0, 2.0]) + np.array([0.1, 0.6, 0.9]))
    unit = weight[:, 0] / np.sqrt(np.sum(np.square(weight)))
    np.testing.assert_allclose(out, np.sqrt(2) * np.cos(angles) @ unit, rtol=1e-3, atol=1e-3)
