import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import rectified_flow
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context


@pytest.mark.usefixtures("small_data")
def test_the_loss_is_the_mean_over_elements_as_that_of_the_code_whose_gradients_are_clipped_at_one():
    """Of a network that starts as 0: the mean square of z - x."""
    experiment = module("cifar10_rectified_flow").build(small("cifar10_rectified_flow"))
    params, key = jax.jit(experiment.init)(jax.random.key(0)), jax.random.key(1)
    batch = {"image": jax.random.normal(jax.random.key(2), (4, *made_up.SHAPE)), "label": jnp.zeros(4, int)}
    losses, metrics = jax.jit(experiment.objective)(params, batch, key, Context(jnp.zeros((), int), None, {}))
    summed, expected = rectified_flow(lambda x, t: jnp.zeros_like(x), batch["image"], jax.random.split(key)[0])
    np.testing.assert_allclose(metrics["t"], expected["t"])
    np.testing.assert_allclose(losses, summed / np.prod(made_up.SHAPE), rtol=1e-5)
