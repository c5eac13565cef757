from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.draw import draw, draw_all
from eval.images import to_uint8


class ToySampler(NamedTuple):
    """A sampler."""

    name: str
    nfe: int
    sample: Callable[[Any, jax.Array, jax.Array], jax.Array]


def noise(params, keys, labels):
    images = jax.vmap(lambda key: jax.random.uniform(key, (2, 2, 1), minval=-1.0))(keys)
    return params * images + 0.01 * labels[:, None, None, None]


SAMPLER = ToySampler("noise", 1, noise)


def all_of(sampler=SAMPLER, **changes):
    options = {"n": 10, "seed": 3, "num_classes": 4, "batch_size": 10}
    return draw_all(sampler, jnp.float32(0.9), **(options | changes))


def test_sample_i_has_its_own_key_and_label():
    images, labels = all_of()
    for i in (0, 7):
        key = jax.random.fold_in(jax.random.key(3), i)
        expected = noise(jnp.float32(0.9), key[None], jnp.array([i % 4]))
        np.testing.assert_array_equal(images[i], to_uint8(expected)[0])
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert labels.dtype == np.int32


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_exact_count_and_no_trace_of_the_batch_size(batch_size):
    images, labels = all_of(batch_size=batch_size)
    expected_images, expected_labels = all_of()
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


def test_more_samples_begin_with_the_same_ones():
    np.testing.assert_array_equal(all_of(n=25, batch_size=8)[0][:10], all_of()[0])
    assert (all_of(seed=4)[0] != all_of()[0]).any()


def test_one_compilation_for_all_batches():
    traced = []

    def counted(params, keys, labels):
        traced.append(labels.shape)
        return noise(params, keys, labels)

    all_of(ToySampler("counted", 1, counted), n=11, batch_size=4)
    assert traced == [(4,)]


def test_without_classes_the_model_gets_zeros_and_the_judge_none():
    images, labels = all_of(num_classes=0)
    assert labels is None
    key = jax.random.fold_in(jax.random.key(3), 5)
    np.testing.assert_array_equal(images[5], to_uint8(noise(0.9, key[None], jnp.zeros(1)))[0])


def test_refusals():
    with pytest.raises(ValueError, match="n is 0"):
        draw(SAMPLER, 1.0, n=0, seed=0, num_classes=0, batch_size=4)
    with pytest.raises(ValueError, match="batch_size is -1"):
        draw(SAMPLER, 1.0, n=4, seed=0, num_classes=0, batch_size=-1)
    with pytest.raises(ValueError, match="40 of 40 values, in 10 of 10 images"):
        draw_all(SAMPLER, jnp.float32(jnp.nan), n=10, seed=0, num_classes=0, batch_size=10)
