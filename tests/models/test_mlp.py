import jax
import jax.numpy as jnp
import numpy as np

from models.mlp import MLP


def test_plain_network_needs_x_and_t_alone_and_starts_at_zero():
    module, x, t = MLP(width=8, depth=1), jnp.ones((3, 2)), jnp.ones(3)
    params = module.init(jax.random.key(0), x, t)
    out = np.asarray(module.apply(params, x, t))
    assert out.shape == x.shape
    assert np.all(out == 0)
