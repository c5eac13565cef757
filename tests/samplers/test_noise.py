from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import Churn, edit, editing, edm_stochastic, multistep_consistency, noise, normal, sample_keys
from tests.oracles import PATHS

TIMES = [3.0, 1.0, 0.5]


def net(x, t):
    return jnp.tanh(x) / (1 + t[:, None])


def inpaint(x, keys):
    task = editing.inpainting(np.asarray([True, False, True, False]))
    return edit(net, x, TIMES, keys, task=task, path=PATHS["edm"].path)


SAMPLERS = {
    "edit": inpaint,
    "multistep_consistency": partial(multistep_consistency, net, times=TIMES, path=PATHS["edm"].path),
    "edm_stochastic": partial(edm_stochastic, net, times=TIMES, churn=Churn(amount=1.0)),
}


def run(sampler, indices, seed=0):
    keys = sample_keys(seed, jnp.asarray(indices))
    return np.asarray(jax.jit(lambda x, keys: sampler(x=x, keys=keys))(3.0 * normal(keys, (4,)), keys))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_depends_on_its_seed_and_index_alone(name):
    batch = run(SAMPLERS[name], range(8))
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    np.testing.assert_allclose(run(SAMPLERS[name], order), batch[order], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(run(SAMPLERS[name], [3])[0], batch[3], rtol=1e-6, atol=1e-7)
    assert np.abs(run(SAMPLERS[name], range(8), seed=1) - batch).min() > 0
    assert len(np.unique(batch)) == batch.size


def test_noise_is_bit_for_bit_that_of_the_index():
    batch = normal(sample_keys(0, jnp.arange(8)), (3, 2))
    np.testing.assert_array_equal(normal(sample_keys(0, jnp.asarray([6, 1])), (3, 2)), batch[jnp.asarray([6, 1])])


def test_numpy_indices():
    np.testing.assert_array_equal(
        jax.random.key_data(sample_keys(0, np.arange(3))), jax.random.key_data(sample_keys(0, jnp.arange(3)))
    )


def test_standard_normal_and_different_at_every_draw():
    keys = sample_keys(0, jnp.arange(4096))
    x = jnp.zeros((4096, 2), jnp.float32)
    draws = jnp.stack([normal(keys, (2,)), *(noise.fresh(keys, number, x) for number in range(3))])
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / draws.size)
    correlation = np.corrcoef(draws.reshape(4, -1))
    assert np.abs(correlation - np.eye(4)).max() < 4 / np.sqrt(8192)


def test_fresh_noise_has_the_type_of_the_state():
    keys = sample_keys(0, jnp.arange(2))
    assert noise.fresh(keys, 0, jnp.zeros((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_start_is_no_sampler_s_noise():
    """With D(x) = x a step of EDM's sampler adds noise alone, and with f = 0 so does a step of multistep sampling."""
    keys = sample_keys(0, jnp.arange(512))
    zeros = jnp.zeros((512, 1))
    start = noise.initial(keys, (1,))
    added = edm_stochastic(lambda x, t: x, zeros, [1.0], keys, churn=Churn(amount=0.4))
    seen = []

    def nothing(x, t):
        seen.append(x)
        return jnp.zeros_like(x)

    with jax.disable_jit():
        multistep_consistency(nothing, zeros, [2.0, 1.0], keys, path=PATHS["edm"].path)
    for other in (added, seen[1]):
        assert other.std() > 0.1
        assert abs(np.corrcoef(start[:, 0], other[:, 0])[0, 1]) < 4 / np.sqrt(512)
