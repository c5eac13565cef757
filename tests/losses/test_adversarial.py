from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import adversarial, paths
from tests.oracles import PATHS

SD = paths.scaled_linear_beta()


def test_hinges_of_one_head():
    real, fake = jnp.asarray([2.0, 0.5, -1.0]), jnp.asarray([-2.0, 0.5, 3.0])
    np.testing.assert_allclose(adversarial.hinge_discriminator([real], [fake]), [0 + 0, 0.5 + 1.5, 2 + 4])
    np.testing.assert_allclose(adversarial.hinge_generator([fake]), [2, -0.5, -3])
    np.testing.assert_allclose(adversarial.saturating_hinge_generator([fake]), [3, 0.5, 0])


def test_a_discriminator_that_cannot_tell():
    """At consistency fake and real have one law, the best D is 0: 2 for it, 1 or 0 for the generator."""
    zeros = (jnp.zeros((4, 2, 2, 1)), jnp.zeros((4, 1)))
    np.testing.assert_array_equal(adversarial.hinge_discriminator(zeros, zeros), 2)
    np.testing.assert_array_equal(adversarial.saturating_hinge_generator(zeros), 1)
    np.testing.assert_array_equal(adversarial.hinge_generator(zeros), 0)


def test_heads_count_the_same_whatever_their_size_and_the_hinge_comes_before_the_mean():
    large = jnp.asarray([[[3.0, 3.0], [3.0, -1.0]]], jnp.bfloat16)
    small = jnp.asarray([0.0])
    np.testing.assert_allclose(adversarial.hinge_generator((large, small)), [-(2 + 0) / 2])
    loss = adversarial.saturating_hinge_generator((large, small))
    np.testing.assert_allclose(loss, [(2 / 4 + 1) / 2])  # of the mean, 2, it would be (0 + 1) / 2
    assert loss.dtype == jnp.float32
    loss = adversarial.hinge_discriminator((large, small), (small, large))
    np.testing.assert_allclose(loss, [(2 / 4 + 1) / 2 + (1 + 12 / 4) / 2])


def test_gradients_of_the_generators():
    """PCM's stops where a head is fooled by more than 1, CTM's never."""
    fake = jnp.asarray([-3.0, 0.5, 1.5])
    for loss, expected in (
        (adversarial.saturating_hinge_generator, [-1, -1, 0]),
        (adversarial.hinge_generator, [-1, -1, -1]),
    ):
        np.testing.assert_array_equal(jax.grad(lambda d, loss=loss: loss([d]).sum())(fake), expected)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("heads", [jnp.zeros((4, 1)), []])
def test_heads_are_a_sequence(heads):
    """An array would be read as one head for each example."""
    with pytest.raises(ValueError, match="tuple or list of one or more heads"):
        adversarial.hinge_generator(heads)
    with pytest.raises(ValueError, match="tuple or list of one or more heads"):
        adversarial.hinge_discriminator(heads, heads)


def test_as_many_heads_for_both():
    with pytest.raises(ValueError, match="same number of heads, got 1 and 2"):
        adversarial.hinge_discriminator([jnp.zeros(4)], [jnp.zeros(4), jnp.zeros(4)])


# ---- Noising again ---------------------------------------------------------------------------------------------------


def response(path: paths.Path, s: Any, t: Any) -> tuple[np.ndarray, np.ndarray]:
    """Factors of x_s and of the fresh noise in the state at t."""
    s, t = jnp.atleast_1d(jnp.asarray(s, float)), jnp.atleast_1d(jnp.asarray(t, float))
    one, zero = jnp.ones((len(s), 1)), jnp.zeros((len(s), 1))
    of_x, of_z = (np.asarray(adversarial.renoise(path, *xz, s, t)[:, 0]) for xz in ((one, zero), (zero, one)))
    return of_x, of_z


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_noised_again_it_has_the_law_of_the_path(name):
    path, low, high = PATHS[name]
    s, t = jnp.linspace(low, 0.8 * high, 5), jnp.linspace(1.1 * low, high, 5)
    of_x, of_z = response(path, s, t)
    np.testing.assert_allclose(of_x * path.alpha(s), path.alpha(t), rtol=1e-12)
    np.testing.assert_allclose(np.hypot(of_x * path.sigma(s), of_z), path.sigma(t), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_on_the_schedule_of_stable_diffusion_it_is_pcms_own():
    table = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    s, t = np.asarray([0, 249, 749]), np.asarray([200, 498, 999])
    of_x, of_z = response(SD, s, t)
    np.testing.assert_allclose(of_x, np.sqrt(table[t] / table[s]), rtol=1e-12)
    np.testing.assert_allclose(of_z, np.sqrt(1 - table[t] / table[s]), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_on_a_straight_line_pcms_formula_would_be_too_little():
    s, t = np.asarray([0.5, 0.25, 0.75]), np.asarray([0.75, 0.5, 0.99])
    of_x, of_z = response(paths.linear, s, t)
    np.testing.assert_allclose(np.hypot(of_x * s, of_z), t, rtol=1e-12)
    np.testing.assert_allclose(np.hypot(of_x * s, (t - s) / (1 - s)), [0.559, 0.373, 0.9605], atol=5e-4)


def test_at_the_same_time_nothing_is_added():
    x, z = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    t = jnp.asarray([0.2, 0.5, 80.0])
    for renoise in (adversarial.renoise, jax.jit(adversarial.renoise, static_argnums=0)):
        np.testing.assert_array_equal(renoise(paths.edm, x, z, t, t), x)
    gradient = jax.grad(lambda x: adversarial.renoise(paths.linear, x, z, t / 100, t / 100).sum())(x)
    np.testing.assert_array_equal(gradient, 1)


# ---- Weights by the length of gradients ------------------------------------------------------------------------------


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"]) @ params["last"]["kernel"] + params["last"]["bias"]


def terms_of(params: dict[str, Any], x: jax.Array) -> tuple[jax.Array, ...]:
    y = network(params, x)
    return jnp.sum((y - x) ** 2, axis=1), 30 * jnp.sum(jnp.cos(y), axis=1), 200 * jnp.sum(y**4, axis=1)


@pytest.fixture
def params() -> dict[str, Any]:
    first, last = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    return {"first": jnp.asarray(first), "last": {"kernel": jnp.asarray(last), "bias": jnp.zeros(3)}}


X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def balance(params: dict[str, Any], limits: Any) -> Any:
    def of_last(last):
        terms = terms_of({**params, "last": last}, jnp.asarray(X))
        return terms, {"largest": terms[0].max()}

    return adversarial.balanced(of_last, params["last"], limits=limits)


def norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


def test_weighted_gradients_have_the_length_of_the_first(params):
    terms, weights, rest = jax.jit(lambda params: balance(params, [(0.0, 1e4), (0.0, 1e4)]))(params)
    jacobian = jax.jit(jax.jacrev(lambda params: jnp.stack(terms_of(params, jnp.asarray(X))).mean(axis=1)))(params)
    lengths = [norm(jax.tree.map(lambda leaf, k=k: leaf[k], jacobian["last"])) for k in range(3)]
    assert lengths[1] > 2
    assert lengths[2] > 2
    for weight, length in zip(weights, lengths[1:], strict=True):
        np.testing.assert_allclose(weight * length, lengths[0], rtol=1e-4)
        assert not 0.5 < weight < 2
    np.testing.assert_allclose(terms[0], jnp.sum((network(params, jnp.asarray(X)) - X) ** 2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(rest["largest"], terms[0].max())


def test_weights_are_constants_of_the_gradient_of_all_parameters(params):
    def weighted(params):
        (first, *others), weights, _ = balance(params, [(0.0, 1e4), (0.0, 1e4)])
        return (first + sum(w * term for w, term in zip(weights, others, strict=True))).mean(), weights

    gradient, weights = jax.jit(jax.grad(weighted, has_aux=True))(params)
    factors = jnp.stack([jnp.ones(()), *weights])
    expected = jax.jit(
        jax.grad(lambda p: (factors[:, None] * jnp.stack(terms_of(p, jnp.asarray(X)))).mean(axis=1).sum())
    )(params)
    for got, leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-3, atol=1e-4)
        assert norm(leaf) > 0.1


def test_limits_and_a_term_without_gradient(params):
    """The floor of 1e-4 keeps 1/0 away; what is left is the upper limit."""

    def of_last(last):
        first = terms_of({**params, "last": last}, jnp.asarray(X))[0]
        return (first, 1e-3 * first, 1e3 * first, jnp.ones(8)), None

    _, weights, _ = jax.jit(
        lambda: adversarial.balanced(of_last, params["last"], limits=[(0.01, 10.0), (0.01, 10.0), (0.0, 1e4)])
    )()
    np.testing.assert_allclose(weights, [10, 0.01, 1e4])


def test_as_many_limits_as_weights(params):
    with pytest.raises(ValueError, match="3 terms need 2 pairs of limits, got 1"):
        jax.eval_shape(lambda params: balance(params, [(0.0, 1.0)])[0], params)
