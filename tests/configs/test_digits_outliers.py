import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits_outliers
from tests.configs.made_up import small


def test_outliers_are_rare_large_and_of_either_sign():
    x = jnp.linspace(-1, 1, 200_000).reshape(500, 20, 20, 1)
    y = digits_outliers.with_outliers(jax.random.key(0), x, share=0.01, size=7.5)
    hit = np.asarray(y != x)
    assert abs(hit.mean() - 0.01) < 4 * np.sqrt(0.01 / x.size)
    outliers = np.asarray(y)[hit]
    n = len(outliers)
    # Uniform on [3.75, 7.5] times a sign that has nothing to do with the pixel's.
    assert 3.75 <= np.abs(outliers).min() < 3.8
    assert 7.4 < np.abs(outliers).max() <= 7.5
    assert abs(np.abs(outliers).mean() - 5.625) < 4 * 3.75 / np.sqrt(12 * n)
    assert abs(np.mean(np.sign(outliers) * np.sign(np.asarray(x)[hit]))) < 4 / np.sqrt(n)


def test_without_a_share_the_images_are_as_they_are():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    np.testing.assert_array_equal(digits_outliers.with_outliers(jax.random.key(1), x, share=0.0, size=7.5), x)


def test_a_distance_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="distance is 'l1'; there are cauchy, pseudo_huber, l2"):
        digits_outliers.build(small("digits_outliers", distance="l1"))
