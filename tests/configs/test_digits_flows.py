import jax
import jax.numpy as jnp
import numpy as np

from configs import digits_ot_flow, digits_rectified_flow
from samplers import noise
from tests.configs import made_up
from tests.configs.made_up import small
from train import Context


def test_a_flow_is_the_velocity_that_its_run_samples():
    """One Euler step of the run is z - v(z, 1), with v of `flow(config)`."""
    config = small("digits_rectified_flow")
    experiment, flow = digits_rectified_flow.build(config), digits_rectified_flow.flow(config)
    params, keys, labels = made_up.params(experiment), jax.random.split(jax.random.key(0), 2), jnp.arange(2)
    z = noise.initial(keys, flow.shape)
    (one,) = (sampler for sampler in experiment.samplers if sampler.nfe == 1)
    expected = z - flow.velocity(params, labels)(z, jnp.ones(2))
    np.testing.assert_allclose(one.sample(params, keys, labels), expected, rtol=1e-4, atol=1e-5)
    assert flow.average in experiment.averages


def test_optimal_transport_pairs_within_classes():
    """Where every example has its own class nothing can be exchanged, and the loss is that of independent noise."""
    config, key = small("digits_ot_flow"), jax.random.key(0)
    plain, paired = digits_rectified_flow.build(config), digits_ot_flow.build(config)
    params, image = made_up.params(plain), jax.random.normal(key, (8, 8, 8, 1))
    context = Context(step=jnp.zeros((), jnp.int32), frozen=None, averages={})

    def losses(labels):
        batch = {"image": image, "label": labels}
        return [e.objective(params, batch, key, context)[0] for e in (plain, paired)]

    independent, own_class = losses(jnp.arange(8))
    np.testing.assert_allclose(own_class, independent, rtol=1e-6)
    independent, one_class = losses(jnp.zeros(8, int))
    assert jnp.abs(one_class - independent).max() > 0.1
