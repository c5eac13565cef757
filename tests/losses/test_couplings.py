import jax
import jax.numpy as jnp
import numpy as np

from losses import couplings


def test_independent_noise_is_standard_and_leaves_the_data():
    x = jax.random.normal(jax.random.key(0), (4096, 2, 2))
    same, z = couplings.independent(jax.random.key(1), x)
    assert same is x
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    n = x.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((x * z).mean()) < 4 / np.sqrt(n)


def test_noise_has_the_precision_of_the_data():
    with jax.enable_x64(True):
        _, z = couplings.independent(jax.random.key(1), jnp.ones((2, 3), jnp.float64))
        assert z.dtype == jnp.float64
