from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import distances
from losses.types import Distance

ALL: dict[str, Distance] = {
    "l1": distances.l1,
    "l2": distances.l2,
    "norm": distances.pseudo_huber,
    "pseudo_huber": partial(distances.pseudo_huber, c=0.03),
    "cauchy": partial(distances.cauchy, c=0.5),
    "log_cosh": distances.log_cosh,
    "elementwise": partial(distances.elementwise_pseudo_huber, c=0.03),
}


@pytest.mark.usefixtures("float64")
def test_values_over_whole_examples():
    """One example of the 3-4-5 triangle spread over pixels and channels, one of zeros."""
    a = jnp.zeros((2, 2, 1, 2)).at[0, 0, 0, 1].set(3.0).at[0, 1, 0, 0].set(-4.0)
    b = jnp.zeros_like(a)
    exact = {
        "l1": 7.0,
        "l2": 25.0,
        "norm": 5.0,
        "pseudo_huber": np.sqrt(25 + 0.03**2) - 0.03,
        "cauchy": np.log(1 + 25 / (2 * 0.5**2)),
        "log_cosh": np.log(np.cosh(3)) + np.log(np.cosh(4)),
        "elementwise": (np.sqrt(9 + 0.03**2) + np.sqrt(16 + 0.03**2) - 2 * 0.03) / 4,
    }
    for name, distance in ALL.items():
        np.testing.assert_allclose(distance(a, b), [exact[name], 0], rtol=1e-14, atol=1e-300, err_msg=name)
        np.testing.assert_allclose(distance(b, a), distance(a, b), rtol=1e-14, err_msg=name)


def test_pseudo_huber_takes_the_norm_of_the_example():
    """Element by element, c sqrt(d) would make it a small multiple of l2: 16 roots instead of one."""
    a, b = jnp.ones((1, 16)), jnp.zeros((1, 16))
    c = 0.3
    np.testing.assert_allclose(distances.pseudo_huber(a, b, c=c), np.sqrt(16 + c**2) - c, rtol=1e-6)
    assert distances.pseudo_huber(a, b, c=c)[0] < 0.4 * 16 * (np.sqrt(1 + c**2) - c)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4,), (4, 1, 1, 1), (1, 3), (4, 3, 1)])
def test_shape_mismatch_is_an_error(name, shape):
    """Every one of these would broadcast against (4, 3)."""
    with pytest.raises(ValueError, match=r"same shape, got \(4, 3\) and"):
        ALL[name](jnp.zeros((4, 3)), jnp.zeros(shape))


@pytest.mark.parametrize("name", ALL)
def test_gradient_at_zero_is_zero(name):
    a = jnp.ones((2, 3))
    gradient = jax.grad(lambda a: ALL[name](a, jnp.ones((2, 3))).sum())(a)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("c", [0.0, 0.03])
def test_pseudo_huber_gradient_is_a_bounded_direction(c):
    for size in (1e-6, 1e-3, 1.0, 1e3):
        a = size * jnp.asarray([[0.6, 0.8]])
        gradient = jax.grad(lambda a: distances.pseudo_huber(a, jnp.zeros((1, 2)), c=c).sum())(a)
        np.testing.assert_allclose(gradient, a / np.sqrt(size**2 + c**2), rtol=1e-5)


def test_tiny_distances_keep_their_precision():
    """At d = 1e-5 and c = 0.03, sqrt(d^2 + c^2) - c = d^2 / 2c is 1.7e-9: below the rounding of c in float32."""
    d = np.geomspace(1e-6, 1e-2, 9)
    got = distances.pseudo_huber(jnp.asarray(d, jnp.float32)[:, None], jnp.zeros((9, 1)), c=0.03)
    np.testing.assert_allclose(got, d**2 / (np.sqrt(d**2 + 0.03**2) + 0.03), rtol=1e-6)
    got = distances.pseudo_huber(jnp.asarray(d, jnp.float32)[:, None], jnp.zeros((9, 1)))
    np.testing.assert_allclose(got, d, rtol=1e-6)
    got = distances.cauchy(jnp.asarray(d, jnp.float32)[:, None], jnp.zeros((9, 1)), c=1.0)
    np.testing.assert_allclose(got, np.log1p(d**2 / 2), rtol=1e-6)


def test_cauchy_golden():
    """Values of the authors' code at c = 0.03456, d = 1e-3 ... 10 in every element; their mean is our norm / sqrt(d).

    The first of them was a difference of logarithms in float32, good to 2e-7.
    """
    c, elements = 0.03456, 8
    d = jnp.asarray([1e-3, 1e-2, 1e-1, 1.0, 10.0])
    a = jnp.broadcast_to(d[:, None], (5, elements))
    got = distances.cauchy(a, jnp.zeros_like(a), c=c * np.sqrt(elements))
    np.testing.assert_allclose(got, [4.187e-4, 4.101e-2, 1.646, 6.039, 10.642], rtol=2e-4, atol=3e-7)


def test_log_cosh_neither_overflows_nor_goes_negative():
    d = np.asarray([1e-4, 1e-2, 0.5, 20.0, 100.0, 1e4, 1e30])
    a = jnp.asarray(d, jnp.float32)[:, None]
    got = distances.log_cosh(a, jnp.zeros_like(a))
    exact = d - np.log(2) + np.log1p(np.exp(-2 * d))
    np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-8)
    gradient = jax.grad(lambda a: distances.log_cosh(a, jnp.zeros_like(a)).sum())(a)
    np.testing.assert_allclose(gradient[:, 0], np.tanh(d), rtol=1e-6, atol=1e-7)


def test_half_precision_against_float32_is_float32():
    a, b = jnp.ones((1, 3), jnp.bfloat16), jnp.full((1, 3), 1.001, jnp.float32)
    for name, distance in ALL.items():
        assert distance(a, b).dtype == jnp.float32, name
    np.testing.assert_allclose(distances.l1(a, b), 0.003, rtol=1e-4)


# ---- LPIPS -----------------------------------------------------------------------------------------------------------


def identity(images):
    """One layer: the image itself."""
    return [images]


def test_lpips_by_hand():
    """Two pixels of two channels. Unit vectors (0.6, 0.8) against (1, 0), and equal directions of other lengths."""
    a = jnp.asarray([[[[3.0, 4.0], [1.0, 1.0]]]])
    b = jnp.asarray([[[[2.0, 0.0], [5.0, 5.0]]]])
    weights = [jnp.asarray([0.5, 2.0])]
    got = distances.lpips(a, b, features=identity, weights=weights)
    np.testing.assert_allclose(got, [(0.5 * 0.4**2 + 2.0 * 0.8**2) / 2], rtol=1e-6)


def test_lpips_adds_layers_and_averages_pixels():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2))
    weights = [jnp.asarray([0.5, 2.0]), jnp.asarray([1.0, 0.0, 3.0])]

    def features(images):
        return [images, jnp.concatenate([images, images[..., :1] ** 2], axis=-1)[:, ::2, ::2]]

    got = distances.lpips(a, b, features=features, weights=weights)
    assert got.shape == (3,)
    expected = np.zeros(3)
    for f, g, w in zip(features(a), features(b), weights, strict=True):
        unit_f, unit_g = (np.asarray(v) / np.linalg.norm(v, axis=-1, keepdims=True) for v in (f, g))
        expected += ((unit_f - unit_g) ** 2 * np.asarray(w)).sum(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(distances.lpips(b, a, features=features, weights=weights), got)
    np.testing.assert_array_equal(distances.lpips(a, a, features=features, weights=weights), 0)


def test_lpips_gradient_is_finite_where_images_are_equal_or_features_vanish():
    weights = [jnp.asarray([0.5, 2.0])]

    @jax.jit
    @jax.grad
    def gradient(a, b):
        return distances.lpips(a, b, features=identity, weights=weights).sum()

    images = jax.random.normal(jax.random.key(0), (2, 3, 3, 2))
    np.testing.assert_allclose(gradient(images, images), 0, atol=1e-6)  # jit may round the two branches differently
    zeros = jnp.zeros_like(images)
    np.testing.assert_array_equal(gradient(zeros, zeros), 0)
    assert jnp.isfinite(gradient(zeros, images)).all()
    assert jnp.isfinite(gradient(images, zeros)).all()
    # Towards b, and across a alone, since the length of a feature does not count.
    g, b = gradient(images, -images[::-1]), -images[::-1]
    np.testing.assert_allclose(jnp.sum(g * images, axis=-1), 0, atol=1e-6)
    moved = distances.lpips(images - 1e-3 * g, b, features=identity, weights=weights)
    assert (moved < distances.lpips(images, b, features=identity, weights=weights)).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_lpips_refuses_other_shapes_and_other_numbers_of_layers():
    images, weights = jnp.ones((2, 3, 3, 2)), [jnp.ones(2)]
    for other in (images[:1], images[:, :1], images[..., :1]):
        with pytest.raises(ValueError, match=r"same shape, got \(2, 3, 3, 2\) and"):
            distances.lpips(images, other, features=identity, weights=weights)
    for wrong in ([], [*weights, *weights]):
        with pytest.raises(ValueError, match="argument"):
            distances.lpips(images, images, features=identity, weights=wrong)


def test_elementwise_pseudo_huber_is_a_mean_without_cancellation():
    """As LCM and PCM publish it: as large for four times the pixels. Far below c it is d^2 / (2 c)."""
    a = jnp.asarray([[0.3, -0.1]])
    once, often = (distances.elementwise_pseudo_huber(jnp.tile(a, (1, n)), jnp.zeros((1, 2 * n))) for n in (1, 4))
    np.testing.assert_allclose(once, often, rtol=1e-6)
    np.testing.assert_allclose(once, (0.3 + 0.1) / 2 - 1e-3, rtol=1e-4)
    tiny = distances.elementwise_pseudo_huber(jnp.full((1, 3), 1e-7), jnp.zeros((1, 3)))
    np.testing.assert_allclose(tiny, 5e-12, rtol=1e-5)


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_elementwise_pseudo_huber_rejects(c):
    with pytest.raises(ValueError, match=f"needs c > 0, got {c}"):
        distances.elementwise_pseudo_huber(jnp.ones((1, 2)), jnp.ones((1, 2)), c=c)
