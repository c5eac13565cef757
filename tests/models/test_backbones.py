"""What every network promises: derivatives in both modes, dropout by key, conditions that matter, float32 output."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_derivatives(case):
    inputs = (case.x, case.t, case.s, case.w)
    keys = jax.random.split(jax.random.key(1), len(inputs))
    tangents = tuple(jax.random.normal(key, a.shape) for key, a in zip(keys, inputs, strict=True))
    cotangent = jax.random.normal(jax.random.key(2), case.x.shape)

    def value(params, x, t, s, w):
        return case.module.apply(params, x, t, case.labels, s, w)

    @jax.jit
    def push(*directions):
        return jax.jvp(partial(value, case.params), inputs, directions)[1]

    @jax.jit
    def pull(params):
        return jax.vjp(value, params, *inputs)[1](cotangent)

    gradient, *pulled = pull(case.params)
    size = jnp.abs(case.value(case.params, case.x, case.t, case.labels, case.s, case.w)).max()
    h = 1e-2
    for i in range(len(inputs)):
        directions = tuple(d if i == j else jnp.zeros_like(d) for j, d in enumerate(tangents))
        tangent = push(*directions)
        assert jnp.abs(tangent).max() > 1e-3 * size

        # Forward against reverse mode: they are transposes.
        forward, reverse = jnp.vdot(cotangent, tangent), jnp.vdot(pulled[i], tangents[i])
        scale = float(jnp.linalg.norm(cotangent) * jnp.linalg.norm(tangent))
        np.testing.assert_allclose(forward, reverse, atol=1e-5 * scale)

        # Forward mode against central differences: third derivatives times h^2, and rounding over h.
        def moved(step, directions=directions):
            x, t, s, w = (a + step * d for a, d in zip(inputs, directions, strict=True))
            return case.value(case.params, x, t, case.labels, s, w)

        difference = (moved(h) - moved(-h)) / (2 * h)
        rounding = jnp.finfo(jnp.float32).eps * size / h
        np.testing.assert_allclose(tangent, difference, atol=float(2e-3 * jnp.abs(tangent).max() + rounding))

    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert jnp.all(jnp.isfinite(g)), name
        assert jnp.any(g != 0), name


def test_dropout_is_a_function_of_the_key(case):
    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return case.module.apply(case.params, case.x, case.t, case.labels, case.s, case.w, train=True, rngs=rngs)

    one, same, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(1))
    still = case.value(case.params, case.x, case.t, case.labels, case.s, case.w)
    np.testing.assert_array_equal(one, same)
    assert jnp.abs(one - other).max() > 1e-3
    assert jnp.abs(one - still).max() > 1e-3


def test_each_condition_changes_its_own_example_alone(case):
    value = partial(case.value, case.params, case.x)
    base = value(case.t, case.labels, case.s, case.w)
    for changed in (
        value(case.t.at[1].add(0.3), case.labels, case.s, case.w),
        value(case.t, case.labels.at[1].set(1), case.s, case.w),
        value(case.t, case.labels, case.s.at[1].add(0.3), case.w),
        value(case.t, case.labels, case.s, case.w.at[1].add(0.3)),
    ):
        assert jnp.abs(changed[1] - base[1]).max() > 1e-3 * jnp.abs(base[1]).max()
        np.testing.assert_array_equal(changed[::2], base[::2])


def test_a_guided_network_starts_as_the_unguided_one_with_its_parameters(case, randomized):
    """A distilled network has its teacher's weights, whatever scale it is asked for, until it is trained."""
    bare = case.module.clone(guided=False)
    conditions = case.x, case.t, case.labels, case.s
    params = randomized(bare, *conditions)
    start = jax.jit(case.module.init)(jax.random.key(0), *conditions, case.w)
    old = dict(jax.tree_util.tree_leaves_with_path(params))
    joined = jax.tree_util.tree_map_with_path(lambda path, leaf: old.get(path, leaf), start)
    new = dict(jax.tree_util.tree_leaves_with_path(joined)).keys() - old.keys()
    assert len(new) == len(jax.tree.leaves(start)) - len(old) > 0
    expected = jax.jit(bare.apply)(params, *conditions)
    np.testing.assert_array_equal(case.value(joined, *conditions, case.w), expected)

    # And it can learn to be another: the scale's layers have a derivative.
    def squared(params):
        return jnp.sum(case.module.apply(params, *conditions, case.w) ** 2)

    direction = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape) * (path in new), joined
    )
    _, slope = jax.jit(lambda params, direction: jax.jvp(squared, (params,), (direction,)))(joined, direction)
    assert abs(slope) > 0


def test_new_values_do_not_compile_again(case):
    case.value(case.params, case.x, case.t, case.labels, case.s, case.w)
    compiled = len(case.traces)
    case.value(case.params, 2 * case.x, case.s, case.labels[::-1], case.w, case.t)
    assert len(case.traces) == compiled > 0


def test_half_precision_body(case):
    half = case.module.clone(dtype=jnp.bfloat16)
    inputs = case.x, case.t, case.labels, case.s, case.w
    params = jax.eval_shape(half.init, jax.random.key(0), *inputs)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    out, full = jax.jit(half.apply)(case.params, *inputs), case.value(case.params, *inputs)
    assert out.dtype == jnp.float32
    error = jnp.linalg.norm(out - full) / jnp.linalg.norm(full)
    assert 1e-5 < error < 0.02


@pytest.mark.parametrize(
    ("settings", "missing", "message"),
    [
        ({"num_classes": 0}, "", "unconditional"),
        ({"second_time": False}, "", "second_time=False"),
        ({"guided": False}, "", "w was given to a network with guided=False"),
        ({}, "labels", "needs labels"),
        ({}, "s", "needs s"),
        ({}, "w", "guided=True and needs w, a guidance scale"),
    ],
)
def test_missing_and_superfluous_conditions_are_refused(case, settings, missing, message):
    module = case.module.clone(**settings)
    conditions = {"labels": case.labels, "s": case.s, "w": case.w} | ({missing: None} if missing else {})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(module.apply, **conditions), case.params, case.x, case.t)
